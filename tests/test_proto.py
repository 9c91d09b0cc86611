#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares proto/onnx.proto with the descriptors of the installed onnx package, both ways.

usage: test_proto.py [proto/onnx.proto]
Compiles it with protoc-c, as the build does; prints each difference and exits 1 on any.
"""
import pathlib
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2
from onnx import onnx_ml_pb2

FieldProto = descriptor_pb2.FieldDescriptorProto


def compile_proto(path):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        subprocess.run(["protoc-c", f"--proto_path={path.parent}", f"--descriptor_set_out={out}",
                        path.name], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    assert len(files) == 1
    return files[0]


def reserved(descriptor, facts, where):
    numbers = {n for r in descriptor.reserved_range for n in range(r.start, r.end)}
    facts[f"{where} reserved numbers"] = tuple(sorted(numbers))
    facts[f"{where} reserved names"] = tuple(sorted(descriptor.reserved_name))


def enum_facts(enum, where, facts):
    name = f"{where}.{enum.name}"
    facts[f"enum {name}"] = True
    reserved(enum, facts, f"enum {name}")
    facts[f"enum {name} options"] = str(enum.options)
    for value in enum.value:
        facts[f"value {name}.{value.name}"] = value.number


def message_facts(message, where, facts):
    name = f"{where}.{message.name}"
    facts[f"message {name}"] = True
    reserved(message, facts, f"message {name}")
    facts[f"message {name} options"] = str(message.options)
    facts[f"message {name} extensions"] = str(message.extension_range) + str(message.extension)
    for field in message.field:
        oneof = (message.oneof_decl[field.oneof_index].name
                 if field.HasField("oneof_index") else None)
        packed = field.options.packed if field.options.HasField("packed") else None
        facts[f"field {name}.{field.name}"] = (
            field.number, FieldProto.Type.Name(field.type), field.type_name,
            FieldProto.Label.Name(field.label), packed, field.default_value, oneof,
            field.proto3_optional, str(field.options))
    for enum in message.enum_type:
        enum_facts(enum, name, facts)
    for nested in message.nested_type:
        message_facts(nested, name, facts)


def file_facts(file):
    # How the package compiles its file (LITE_RUNTIME) says nothing about the wire.
    facts = {"package": file.package, "syntax": file.syntax or "proto2",
             "extensions": str(file.extension), "dependencies": tuple(file.dependency)}
    for enum in file.enum_type:
        enum_facts(enum, "", facts)
    for message in file.message_type:
        message_facts(message, "", facts)
    return facts


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "proto" / "onnx.proto"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    ours = file_facts(compile_proto(path))
    reference = descriptor_pb2.FileDescriptorProto()
    onnx_ml_pb2.DESCRIPTOR.CopyToProto(reference)
    theirs = file_facts(reference)
    differences = [f"{key}: ours {ours.get(key, 'absent')}, onnx {theirs.get(key, 'absent')}"
                   for key in sorted(ours.keys() | theirs.keys())
                   if ours.get(key) != theirs.get(key)]
    fields = sum(key.startswith("field ") for key in theirs)
    if len(theirs) < 300 or fields < 100:
        differences.append(f"only {len(theirs)} facts with {fields} fields were compared")
    print("\n".join(differences) or f"{len(theirs)} facts, {fields} fields: all equal")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
