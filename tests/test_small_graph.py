# SPDX-License-Identifier: Apache-2.0
"""Graphs made smaller with equal answers in onnxruntime: batch normalization folded into convolutions,
and names and defaults left out (compress --graph small)."""
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paths import PROGRAM, ROOT, driver

RNG = np.random.default_rng(5)
CIFAR = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
LENET, BN = ROOT / "testdata" / "lenet5_mnist.onnx", ROOT / "testdata" / "resnet32_bn.onnx"


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def rewrite(how, path):
    out = path.with_suffix(f".{how}.onnx")
    done = subprocess.run([driver("rewrite_model"), how, path, out], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("done"), done.stdout
    assert not done.stderr, done.stderr
    return int(done.stdout.split()[1]), out


def answers(path, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def save(work, name, nodes, initializers, inputs=("x",), outputs=("y",)):
    values = {k: helper.make_tensor_value_info(k, T.FLOAT, [2, 4, 6, 6] if k == "x" else None)
              for k in (*inputs, *outputs)}
    graph = helper.make_graph(nodes, "g", [values[k] for k in inputs], [values[k] for k in outputs],
                              [numpy_helper.from_array(v, k) for k, v in initializers.items()], doc_string="words")
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 15)])
    path = work / f"{name}.onnx"
    onnx.save(model, path)
    return path


def conv_norm(work, name, bias=False, group=1, twice=False, shared=False, output=False, given=False):
    """A convolution and a normalization, with what may stand in folding's way."""
    tensors = {"w": floats(6, 4 // group, 3, 3), "s": floats(6), "b": floats(6), "m": floats(6), "v": abs(floats(6))}
    nodes = [helper.make_node("Conv", ["x", "w"] + ["c"] * bias, ["h"], group=group, pads=[1, 1, 1, 1], strides=[1, 1],
                              dilations=[1, 1], kernel_shape=[3, 3], name="a long name for a convolution"),
             helper.make_node("BatchNormalization", ["h", "s", "b", "m", "v"], ["n"], epsilon=1e-3),
             helper.make_node("Relu", ["n"], ["y"])]
    if bias:
        tensors["c"] = floats(6)
    if twice:
        nodes.append(helper.make_node("Abs", ["h"], ["z"]))
    if shared:
        nodes.append(helper.make_node("Mul", ["m", "m"], ["z"]))
    outputs = ["y"] + ["z"] * (twice or shared) + ["h"] * output
    return save(work, name, nodes, tensors, ["x"] + ["s"] * given, outputs)


def constants(work):
    """What some exporters write: every weight in a Constant node right before the node that reads it."""
    model = onnx.load(conv_norm(work, "constants", bias=True))
    graph, nodes, left = model.graph, [], {t.name: t for t in model.graph.initializer}
    for node in graph.node:
        nodes += [helper.make_node("Constant", [], [i], value=left.pop(i)) for i in node.input if i in left]
        nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    onnx.save(model, work / "constants.onnx")
    return work / "constants.onnx"


def folds(work):
    feeds = {"x": floats(2, 4, 6, 6)}
    for name, what, expected in (
            ("plain", {}, 1), ("bias", {"bias": True}, 1), ("groups", {"group": 2}, 1), ("read twice", {"twice": True}, 0),
            ("shared mean", {"shared": True}, 0), ("output", {"output": True}, 0)):
        path = conv_norm(work, name.replace(" ", "_"), **what)
        count, out = rewrite("fold", path)
        assert count == expected, (name, count)
        for a, b in zip(answers(path, feeds), answers(out, feeds)):
            assert np.max(np.abs(a - b)) <= 2e-5 * np.max(np.abs(a)), name
        if expected:
            left = onnx.load(out).graph
            assert [n.op_type for n in left.node] == ["Conv", "Relu"], name
            assert {t.name for t in left.initializer} == {"w", "b"}, name
    path = constants(work)
    count, out = rewrite("fold", path)
    assert count == 1
    a, b = answers(path, feeds)[0], answers(out, feeds)[0]
    assert np.max(np.abs(a - b)) <= 2e-5 * np.max(np.abs(a))
    left = onnx.load(out).graph
    assert sorted(n.op_type for n in left.node) == ["Constant", "Constant", "Conv", "Relu"] and not left.initializer
    # What a caller may set is no constant.
    given = onnx.load(conv_norm(work, "given"))
    given.graph.input.append(helper.make_tensor_value_info("s", T.FLOAT, [6]))
    onnx.save(given, work / "given.onnx")
    assert rewrite("fold", work / "given.onnx")[0] == 0
    # A real network.
    count, out = rewrite("fold", link(BN, work))
    images = RNG.standard_normal((8, 3, 32, 32)).astype(np.float32)
    a, b = (answers(p, {"image": images})[0] for p in (BN, out))
    assert count == 31 and np.max(np.abs(a - b)) < 1e-4 * np.max(np.abs(a)), count


def link(path, work):
    copy = work / path.name
    copy.write_bytes(path.read_bytes())
    return copy


def with_branch(work):
    """Names that the bodies of an If read stay, as do inputs, outputs and the bodies' own."""
    branch = [helper.make_graph([helper.make_node(op, ["hidden_value", "weights_of_it"], [f"branch_{op}"])], op, [],
                                [helper.make_tensor_value_info(f"branch_{op}", T.FLOAT, None)]) for op in ("Mul", "Add")]
    nodes = [helper.make_node("Abs", ["x"], ["hidden_value"], name="n1"),
             helper.make_node("ReduceSum", ["hidden_value"], ["total_of_all"], keepdims=0),
             helper.make_node("Greater", ["total_of_all", "limit"], ["condition"]),
             helper.make_node("If", ["condition"], ["z"], then_branch=branch[0], else_branch=branch[1], name="the_if"),
             helper.make_node("Mul", ["z", "other_weights"], ["y"], doc_string="words")]
    return save(work, "branch", nodes, {"weights_of_it": floats(6), "other_weights": floats(6),
                                        "limit": np.float32(1).reshape(())})


def shortens(work):
    feeds = {"x": floats(2, 4, 6, 6)}
    path = conv_norm(work, "long", bias=True)
    for path, feeds in ((path, feeds), (with_branch(work), feeds),
                        (LENET, {"image": floats(4, 1, 28, 28)}), (BN, {"image": floats(4, 3, 32, 32)})):
        _, out = rewrite("shorten", link(path, work) if path.parent != work else path)
        for a, b in zip(answers(path, feeds), answers(out, feeds)):
            assert np.array_equal(a, b), path
        before, after = onnx.load(path), onnx.load(out)
        assert out.stat().st_size < path.stat().st_size
        for kind in ("input", "output"):
            assert [v.name for v in getattr(before.graph, kind)] == [v.name for v in getattr(after.graph, kind)]
        names = {n for node in after.graph.node for n in (*node.input, *node.output)}
        public = {v.name for v in (*after.graph.input, *after.graph.output)}
        if path.stem == "branch":
            assert {"hidden_value", "weights_of_it"} <= names | {t.name for t in after.graph.initializer}
            assert [n.name for n in after.graph.node if n.name] == ["the_if"]
            assert "other_weights" not in names and "total_of_all" not in names
        else:
            assert max(map(len, names - public)) <= 3 and not any(n.name for n in after.graph.node), names


def compresses(work):
    """The default folds; --graph small has the answers of --graph keep, and restores."""
    np.save(work / "c.npy", np.load(ROOT / "testdata" / "cifar10_calibration.npy")[:8])
    made = {}
    for how in ("keep", "small"):
        made[how] = work / f"{how}.onnx"
        subprocess.run([PROGRAM, "compress", BN, "-o", made[how], "--calib", work / "c.npy", *CIFAR, "--importance",
                        "activation", "--method", "uniform", "--step", "0.005", "--scope", "model", "--graph", how,
                        "--quiet"], check=True)
        assert "BatchNormalization" not in {n.op_type for n in onnx.load(made[how]).graph.node}
        subprocess.run([PROGRAM, "restore", made[how], "-o", work / f"{how}.float.onnx", "--quiet"], check=True)
    images = RNG.standard_normal((4, 3, 32, 32)).astype(np.float32)
    found = [answers(p, {"image": images})[0] for p in (*made.values(), *(work / f"{h}.float.onnx" for h in made))]
    assert all(np.array_equal(found[0], other) for other in found[1:])
    original = answers(BN, {"image": images})[0]
    assert np.max(np.abs(found[0] - original)) < 0.1 * np.max(np.abs(original)), "folded wrongly"
    assert made["small"].stat().st_size < made["keep"].stat().st_size - 8000, made
    refused = subprocess.run([PROGRAM, "compress", LENET, "-o", work / "no.onnx", "--graph", "tiny"],
                             capture_output=True, text=True)
    assert refused.returncode == 1 and "keep or small" in refused.stderr and not (work / "no.onnx").exists()


def strips(work):
    """Traces that an exporter wrote beside nodes go, in bodies too; what the model says of itself stays."""
    branches = [helper.make_graph([helper.make_node("MatMul", ["x", "w"], [f"y{k}"], doc_string="the trace")], "b", [],
                                  [helper.make_tensor_value_info(f"y{k}", T.FLOAT, None)]) for k in range(2)]
    node = helper.make_node("If", ["on"], ["y"], then_branch=branches[0], else_branch=branches[1], name="a name")
    path = save(work, "traced", [node], {"w": floats(6, 64), "on": np.array(True)})
    model = onnx.load(path)
    for carries in (model.graph.node[0], node.attribute[0].g, model.graph.node[0].attribute[0].g.node[0],
                    model.graph.initializer[0], model.graph):
        helper.set_model_props(carries, {"stack": "the trace"})
    helper.set_model_props(model, {"classes": "all of them"})
    onnx.save(model, path)
    subprocess.run([PROGRAM, "compress", path, "-o", work / "stripped.onnx", "--quiet"], check=True, capture_output=True)
    made = (work / "stripped.onnx").read_bytes()
    assert b"the trace" in path.read_bytes() and b"the trace" not in made
    assert b"a name" in made and b"all of them" in made


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for test in (folds, shortens, strips, compresses):
            test(work)
            print(test.__name__, "ok")


if __name__ == "__main__":
    main()
