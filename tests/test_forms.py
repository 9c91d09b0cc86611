#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every output form, opened by a stock onnxruntime.

For real models and for graphs made here at several opsets, make_forms writes each form with and
without sidecar. Each must answer bit for bit as the plain form does, be folded completely when the
session is created, pass the ONNX checker, and restore to the plain form's tensors. Prints what the
decoder costs. --load adds the cost of a load.
"""
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paths import ROOT, driver

MAKE_FORMS = driver("make_forms")
STREAMED = ("function", "inlined")
SPARSE = ["sparse-tensor", "sparse-model"]


def session(path, optimized=None, fold=True):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 2
    # Below the layout optimisations: those depend on the machine and print a warning when saved.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if not fold:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized:
        options.optimized_model_filepath = optimized
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds_of(s):
    rng = np.random.default_rng(1)
    return {i.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in i.shape])
            .astype(np.float32) for i in s.get_inputs()}


def tensors_of(path):
    model = onnx.load(path)
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return model, found


def check_restored(path, plain_path, original):
    out = path + ".restored"
    subprocess.run([MAKE_FORMS, "--restore", path, out], check=True)
    model, restored = tensors_of(out)
    _, plain = tensors_of(plain_path)
    assert restored.keys() == plain.keys(), restored.keys() ^ plain.keys()
    for name, value in plain.items():
        assert value.dtype == restored[name].dtype and value.shape == restored[name].shape, name
        assert value.tobytes() == restored[name].tobytes(), name
    def others(m):
        return [n.SerializeToString() for n in m.graph.node if n.op_type != "Constant"]
    assert others(model) == others(original), "nodes changed"
    assert not model.functions and all(p.key != "onnxpress" for p in model.metadata_props)
    assert [(o.domain, o.version) for o in model.opset_import] == \
        [(o.domain, o.version) for o in original.opset_import]
    assert model.ir_version == max(original.ir_version, 4), model.ir_version
    onnx.checker.check_model(model)


def check_folded(optimized, plain_optimized, what):
    ops = [n.op_type for n in onnx.load(optimized, load_external_data=False).graph.node]
    plain = [n.op_type for n in onnx.load(plain_optimized, load_external_data=False).graph.node]
    assert sorted(ops) == sorted(plain), f"{what}: not folded: {sorted(set(ops) - set(plain))}"


def check_model(path, mode, work):
    folder = tempfile.mkdtemp(dir=work)
    subprocess.run([MAKE_FORMS, path, folder, mode], check=True)
    plain_path = os.path.join(folder, "plain.onnx")
    plain_opt = os.path.join(folder, "plain.opt")
    plain = session(plain_path, plain_opt)
    feeds = feeds_of(plain)
    expected = plain.run(None, feeds)
    unfolded = session(plain_path, fold=False).run(None, feeds)
    original = onnx.load(path)
    sizes = {}
    for file in sorted(glob.glob(os.path.join(folder, "*.onnx"))):
        form = os.path.basename(file)[:-5]
        optimized = file + ".opt"
        got = session(file, optimized).run(None, feeds)
        for a, b in zip(got, expected):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), f"{form}: another answer"
        check_folded(optimized, plain_opt, f"{path} {mode} {form}")
        # Decodes at every run; kernels that prepack constant weights may round otherwise.
        for a, b in zip(session(file, fold=False).run(None, feeds), unfolded):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max(), f"{form}: wrong when not folded"
        onnx.checker.check_model(file, full_check=True)
        model = onnx.load(file, load_external_data=False)
        [metadata] = [json.loads(p.value) for p in model.metadata_props if p.key == "onnxpress"]
        prefix = metadata.get("prefix") or "none"
        streams = [t for t in model.graph.initializer
                   if t.name.startswith(prefix) and t.name[len(prefix)] in "scG"]
        gaps = any(t.name == prefix + "G" for t in streams)
        assert gaps or mode not in SPARSE or form.split("-")[0] not in STREAMED, f"{form}: no gaps"
        outside = [t for t in streams if t.data_location == T.EXTERNAL]
        assert len(outside) == ("sidecar" in form) * len(streams), form
        if not form.startswith("plain"):
            check_restored(file, plain_path, original)
            sizes[form] = os.path.getsize(file)
    return folder, sizes


def decoder_cost(folder, sizes):
    model = onnx.load(os.path.join(folder, "function.onnx"))
    streams = sum(len(t.raw_data) for t in model.graph.initializer if t.name.startswith("_s"))
    functions = sum(len(f.SerializeToString()) + 3 for f in model.functions)
    tables = sum(len(t.SerializeToString()) + 3 for t in model.graph.initializer
                 if t.name[0] == "_" and t.name[1] in "lnkrtGEcauv")
    shapes = sum(len(t.SerializeToString()) + 2 for t in model.graph.initializer
                 if t.name[0] == "_" and t.name[1] in "hS")
    nodes = [n for n in model.graph.node if any(i.startswith("_") for i in n.input)]
    graph = sum(len(n.SerializeToString()) + 2 for n in nodes)
    metadata = sum(len(p.SerializeToString()) + 2 for p in model.metadata_props
                   if p.key == "onnxpress")
    n = sum(len(x.output) for x in nodes if x.op_type == "Split")
    print(f"  function {sizes['function']} B: streams {streams}, functions {functions}, tables "
          f"{tables}, nodes {graph} and shapes {shapes} ({(graph + shapes) / n:.0f} a tensor), "
          f"metadata {metadata}; inlined {sizes['inlined']}, lookup {sizes['lookup']}")
    return functions, sum(f.name.startswith("HuffmanDecode") for f in model.functions)


def synthetic(opset, path):
    """A Conv, MatMuls, a Gemm, a Constant node; weights of all real types, ranks 0 to 4; a weight
    that is an input too, one that is an output, one that only a subgraph reads; names that begin
    as ours do."""
    rng = np.random.default_rng(opset)
    def weight(name, shape, dtype=np.float32):
        return numpy_helper.from_array(np.asarray(rng.laplace(0, .1, shape)).astype(dtype), name)
    inits = [weight("_kernel", (4, 3, 3, 3)), weight("bias", (4,)), weight("a", (64, 320)),
             weight("half", (320, 16), np.float16), weight("double", (16, 8), np.float64),
             weight("scalar", ()), weight("one", (1,)), weight("inner", (8,)),
             weight("d", (64, 320))]
    brain = weight("brain", (8, 8))
    if opset >= 13:  # before, there is no Cast from it
        brain = helper.make_tensor("brain", T.BFLOAT16, [8, 8], numpy_helper.to_array(brain))
    inits.append(brain)
    constant = weight("", (8, 5))
    then = helper.make_graph([helper.make_node("Add", ["g", "inner"], ["t"])], "then", [],
                             [helper.make_tensor_value_info("t", T.FLOAT, ["M", 8])])
    other = helper.make_graph([helper.make_node("Sub", ["g", "inner"], ["e"])], "else", [],
                              [helper.make_tensor_value_info("e", T.FLOAT, ["M", 8])])
    inits.append(numpy_helper.from_array(np.array([0, -1], np.int64), "flat"))
    n = helper.make_node
    nodes = [n("Conv", ["x", "_kernel", "bias"], ["c"], pads=[1, 1, 1, 1]),
             n("Reshape", ["c", "flat"], ["f"]), n("Add", ["a", "d"], ["ad"]),
             n("MatMul", ["f", "ad"], ["m"]),
             n("Cast", ["half"], ["half32"], to=T.FLOAT), n("MatMul", ["m", "half32"], ["h"]),
             n("Cast", ["double"], ["double32"], to=T.FLOAT), n("MatMul", ["h", "double32"], ["k"]),
             n("Mul", ["k", "scalar"], ["s"]), n("Add", ["s", "one"], ["o"]),
             n("Cast", ["brain"], ["brain32"], to=T.FLOAT), n("MatMul", ["o", "brain32"], ["g"]),
             n("ReduceMax", ["g"], ["top"], keepdims=0), n("Cast", ["top"], ["yes"], to=T.BOOL),
             n("If", ["yes"], ["i"], then_branch=then, else_branch=other),
             n("Constant", [], ["w"], value=constant), n("Gemm", ["i", "w"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", T.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", T.FLOAT, ["M", 5]),
         helper.make_tensor_value_info("one", T.FLOAT, [1])], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = min(model.ir_version, 7 if opset < 15 else 8 if opset < 20 else 10)
    onnx.save(model, path)
    return path


def matmul(path, rows, columns, opset=17):
    w = np.random.default_rng(2).laplace(0, .1, (rows, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", T.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", T.FLOAT, ["N", columns])],
        [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def external(path):
    """LeNet-5 with external data, in a file of the very name that a sidecar will have elsewhere."""
    onnx.save(onnx.load("testdata/lenet5_mnist.onnx"), path, save_as_external_data=True,
              location="function-sidecar.onnx.data", size_threshold=0)
    return path


def opsets(work):
    """11 to 21 and the newest, as far as this onnxruntime goes."""
    newest = onnx.defs.onnx_opset_version()
    wanted = {o for o in (11, 12, 13, 17, 18, 21) if o <= newest} | {newest, newest - 1, newest - 2}
    for opset in sorted(wanted):
        path = os.path.join(work, f"opset{opset}.onnx")
        try:
            session(synthetic(opset, path))
        except Exception as error:  # onnxruntime's own exception types are many
            if "opset" not in str(error).lower():
                raise
            continue
        yield opset, path


LOAD = """
import sys, time, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 2
start = time.time(); s = ort.InferenceSession(sys.argv[1], options)
peak = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]
print('%.2f s, peak %d MB' % (time.time() - start, int(peak) // 1024))
"""


def report_load(work):
    path = matmul(os.path.join(work, "large.onnx"), 2048, 2048)
    folder = tempfile.mkdtemp(dir=work)
    subprocess.run([MAKE_FORMS, path, folder, "tensor"], check=True)
    for form in ["plain", "lookup", "function", "inlined"]:
        out = subprocess.run([sys.executable, "-c", LOAD, os.path.join(folder, form + ".onnx")],
                             check=True, capture_output=True, text=True).stdout.strip()
        print(f"  {form}: {out}")


def main():
    start = time.time()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as work:
        for name in ["lenet5_mnist", "resnet20", "resnet32_bn"]:
            lenet = name == "lenet5_mnist"
            for mode in ["tensor", "model", "wide"] + SPARSE if lenet else ["tensor"]:
                print(f"{name}, {mode}")
                folder, sizes = check_model(f"testdata/{name}.onnx", mode, work)
                cost, kinds = decoder_cost(folder, sizes)
                assert cost < 1000 * (1 + kinds), f"{kinds} decoders' functions take {cost} bytes"
        seen = []
        for opset, path in opsets(work):
            seen.append(opset)
            for mode in ["tensor", "model"] + SPARSE:
                check_model(path, mode, work)
        assert {11, 13, 17} <= set(seen) and len(seen) >= 5, seen
        print("opsets", seen)
        check_model(matmul(os.path.join(work, "tiny.onnx"), 1, 1), "tensor", work)
        check_model(external(os.path.join(work, "external.onnx")), "tensor", work)
        for opset in [12, 17]:  # several blocks, whose functions may differ
            path = matmul(os.path.join(work, "blocks.onnx"), 1500, 2100, opset)
            folder, _ = check_model(path, "model", work)
            model = onnx.load(os.path.join(folder, "function.onnx"))
            print(f"blocks, opset {opset}:", [n.op_type for n in model.graph.node][:4])
        check_model(path, "sparse-tensor", work)
        if "--load" in sys.argv:
            report_load(work)
    print(f"onnxruntime {ort.__version__}: all forms agree, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
