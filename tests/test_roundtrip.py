#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads and saves every model at hand with our library and compares them as parsed messages.

Drives the program built from roundtrip.c.
"""
import filecmp
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from paths import ROOT, driver

failures = []


def check(condition, message):
    if not condition:
        failures.append(message)


def roundtrip(program, pairs, folder):
    """Returns what the program said about each source that it refused."""
    listing = folder / "list.txt"
    listing.write_text("".join(f"{source}\n{target}\n" for source, target in pairs))
    result = subprocess.run([program, listing], stderr=subprocess.PIPE, text=True, check=False)
    check(result.returncode in (0, 1), f"it ended with {result.returncode}: {result.stderr}")
    said = {}
    for source, _ in pairs:
        for line in result.stderr.splitlines():
            if line.startswith(f"{source}: "):
                said[str(source)] = line
    return said


def same(source, target):
    a = onnx.load(source, load_external_data=False)
    b = onnx.load(target, load_external_data=False)
    return a == b and (a.SerializeToString(deterministic=True) ==
                       b.SerializeToString(deterministic=True))


def check_equal(program, sources, folder):
    pairs = [(source, folder / f"{i}.out") for i, source in enumerate(sources)]
    said = roundtrip(program, pairs, folder)
    for source, target in pairs:
        if str(source) in said:
            failures.append(f"refused: {said[str(source)]}")
        else:
            check(target.exists() and same(source, target), f"{source}: is not what it was")


def backend_models(folder):
    """The models of the ONNX backend tests: those shipped as files, and those made by code."""
    data = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data"
    models = sorted(data.rglob("*.onnx"))
    from onnx.backend.test.case.node import collect_testcases
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        path = folder / f"{case.name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        models.append(path)
    return models


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def unknown_fields():
    """One of each wire type, with numbers that the schema does not use."""
    return (varint(5001 << 3 | 0) + varint(2**63 + 5) + varint(5002 << 3 | 1) + b"8 bytes!" +
            varint(5003 << 3 | 2) + varint(5) + b"h\0llo" + varint(5004 << 3 | 5) + b"four")


def message(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def odd_models(folder):
    """Valid models that hold what a newer schema, or another writer, could put there."""
    lenet = (ROOT / "testdata" / "lenet5_mnist.onnx").read_bytes()
    node = helper.make_node("Relu", ["x"], ["y"], name="relu").SerializeToString()
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]).SerializeToString()
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]).SerializeToString()
    attribute = onnx.AttributeProto(name="odd", type=onnx.AttributeProto.INT, i=1)
    attribute = attribute.SerializeToString() + unknown_fields()
    graph = (message(1, node + message(5, attribute) + unknown_fields()) +
             message(11, value + unknown_fields()) + message(12, output))
    header = b"\x08\x08" + message(8, b"\x10\x0d")
    models = {
        "unknown_top": lenet + unknown_fields(),
        "unknown_nested": header + message(7, graph + unknown_fields()),
        # An attribute type of the future: 99, and a data location of the future.
        "unknown_enum": header + message(7, graph + message(
            1, node.replace(b"y", b"z").replace(b"x", b"y") +
            message(5, b"\x0a\x01n\xa0\x01\x63"))),
        # Packed where the schema says unpacked and the other way round: legal on the wire.
        "packing": header + message(7, graph + message(5, b"\x08\x02" + b"\x10\x01" +
                                                       b"\x25\0\0\x80\x3f\x25\0\0\0\x40" +
                                                       message(8, b"w"))),
    }
    paths = []
    for name, data in models.items():
        onnx.ModelProto.FromString(data)  # or the test itself is wrong
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(data)
    return paths


def external_model(path, location="weights/w.bin", offset=0, length=None, data=b""):
    """y = x + a + b, with b in an external file at the location given (written if inside)."""
    a = numpy_helper.from_array(np.arange(4, dtype=np.float32), "a")
    b = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[4],
                    data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", str(offset)), ("length", length)):
        if text is not None:
            b.external_data.add(key=key, value=str(text))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    nodes = [helper.make_node("Add", ["x", "a"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [a, b]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    if data:
        target = path.parent / location
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def check_external(program, folder):
    values = np.array([5, 6, 7, 8], np.float32)
    data = b"\0" * 8 + values.tobytes()
    source = external_model(folder / "here" / "m.onnx", offset=8, length=16, data=data)
    away, beside = folder / "there" / "m.onnx", folder / "here" / "copy.onnx"
    away.parent.mkdir()
    said = roundtrip(program, [(source, away), (source, beside)], folder)
    check(not said, f"external data: {said}")
    for target in (away, beside):
        check(same(source, target), f"{target}: is not what it was")
        loaded = {t.name: t for t in onnx.load(target).graph.initializer}
        check(np.array_equal(numpy_helper.to_array(loaded["b"]), values), f"{target}: other data")
    check(filecmp.cmp(source.parent / "weights/w.bin", away.parent / "weights/w.bin", False),
          "the external file was not copied whole")

    # The way model hubs keep their caches: names that link to blobs in one other folder.
    hub, blobs = folder / "hub" / "snapshot", folder / "hub" / "blobs"
    hub.mkdir(parents=True)
    external_model(blobs / "1234", location="w.bin")
    (blobs / "5678").write_bytes(values.tobytes())
    os.symlink("../blobs/1234", hub / "m.onnx")
    os.symlink("../blobs/5678", hub / "w.bin")
    target = folder / "there" / "hub.onnx"
    said = roundtrip(program, [(hub / "m.onnx", target)], folder)
    check(not said and same(hub / "m.onnx", target), f"a model that is a link: {said}")

    # Another file of that name is in the way: nothing may be written, nothing lost.
    other = folder / "taken" / "m.onnx"
    (other.parent / "weights").mkdir(parents=True)
    (other.parent / "weights" / "w.bin").write_bytes(b"precious")
    said = roundtrip(program, [(source, other)], folder)
    check("another file is there" in said.get(str(source), ""), f"a taken name: {said}")
    check((other.parent / "weights" / "w.bin").read_bytes() == b"precious" and
          [p.name for p in other.parent.iterdir()] == ["weights"], "a taken name is not as it was")

    # Saving over the file that holds the data would destroy it.
    said = roundtrip(program, [(source, source.parent / "weights" / "w.bin")], folder)
    check(str(source) in said and (source.parent / "weights" / "w.bin").read_bytes() == data,
          f"the data's own file as the target: {said}")


def check_external_refusals(program, folder):
    outside = folder / "secret.bin"
    outside.write_bytes(b"x" * 16)
    cases = {
        "missing": ({"location": "gone.bin"}, "No such file"),
        "parent": ({"location": "../secret.bin"}, "not a path inside"),
        "hidden_parent": ({"location": "a/../../secret.bin"}, "not a path inside"),
        "absolute": ({"location": str(outside)}, "not a path inside"),
        "empty": ({"location": ""}, "not a path inside"),
        "no_location": ({"location": None}, "without a location"),
        "link": ({"location": "link.bin"}, "outside the model's folder"),
        "folder": ({"location": "."}, "folder"),
    }
    pairs, expected = [], {}
    for name, (arguments, message_part) in cases.items():
        path = external_model(folder / name / "m.onnx", **arguments)
        if name == "link":
            os.symlink(outside, path.parent / "link.bin")
        pairs.append((path, folder / name / "out.onnx"))
        expected[str(path)] = message_part
    said = roundtrip(program, pairs, folder)
    for source, target in pairs:
        line = said.get(str(source), "accepted")
        check(expected[str(source)] in line and "'b'" in line, f"{source}: {line}")
        check(not target.exists(), f"{target}: was written")


def main():
    program = driver("roundtrip")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made, out = folder / "made", folder / "out"
        made.mkdir()
        out.mkdir()
        real = sorted((ROOT / "testdata").glob("*.onnx"))
        check(len(real) >= 4, "testdata holds fewer than four models")
        backend = backend_models(made)
        check(len(backend) >= 500, f"only {len(backend)} backend test models")
        odd = odd_models(made)
        check_equal(program, real + backend + odd, out)
        for name in ("external", "refused"):
            (folder / name).mkdir()
        check_external(program, folder / "external")
        check_external_refusals(program, folder / "refused")
        left = [p for p in folder.rglob(".*.tmp")]
        check(not left, f"temporary files are left: {left}")
    for line in failures[:50]:
        print(line)
    print(f"{len(real)} real, {len(backend)} backend, {len(odd)} odd models: "
          f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
