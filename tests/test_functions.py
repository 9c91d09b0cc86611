# SPDX-License-Identifier: Apache-2.0
"""Model-local functions are run as onnxruntime runs them: nested calls, attributes handed on and their
defaults, omitted inputs, bodies of If; and compress codes the weights that
calls read, and leaves the functions in the file."""
import os
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paths import PROGRAM, driver

RNG = np.random.default_rng(5)
IMPORTS = [helper.make_opsetid("", 18), helper.make_opsetid("fn", 1)]


def ref(node, name, kind=onnx.AttributeProto.FLOAT, of=None):
    """Lets an attribute of the node stand for the call's attribute `of`."""
    node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=of or name, type=kind))
    return node


def functions():
    node = helper.make_node
    scaled = helper.make_function(
        "fn", "Leaky", ["x", "bias"], ["y"],
        [node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([0.5]))),
         node("Mul", ["x", "c"], ["h"]), ref(node("LeakyRelu", ["h"], ["r"]), "alpha"),
         node("Sum", ["r", "bias"], ["y"])], IMPORTS, ["alpha"])
    dense = helper.make_function(
        "fn", "Dense", ["x", "w", "b"], ["y"],
        [node("MatMul", ["x", "w"], ["h"]),
         ref(node("Leaky", ["h", "b"], ["y"], domain="fn"), "alpha", of="slope")],
        IMPORTS, ["slope"])
    with_default = helper.make_function(
        "fn", "Powered", ["x"], ["y"], [ref(node("Elu", ["x"], ["y"]), "alpha")], IMPORTS,
        attribute_protos=[helper.make_attribute("alpha", 0.25)])
    clipped = helper.make_function(
        "fn", "Clipped", ["x", "low", "high"], ["y"], [node("Clip", ["x", "low", "high"], ["y"])],
        IMPORTS)
    then = helper.make_graph([node("Mul", ["x", "k"], ["t"])], "then", [],
                             [helper.make_tensor_value_info("t", T.FLOAT, None)],
                             [numpy_helper.from_array(np.float32([[1.5]]), "k")])
    other = helper.make_graph([node("Powered", ["x"], ["o"], domain="fn")], "other", [],
                              [helper.make_tensor_value_info("o", T.FLOAT, None)])
    either = helper.make_function(
        "fn", "Either", ["x", "limit"], ["y"],
        [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "limit"], ["c"]),
         node("If", ["c"], ["y"], then_branch=then, else_branch=other)], IMPORTS)
    return [dense, scaled, with_default, clipped, either]


def network(weights):
    node = helper.make_node
    nodes = [node("Dense", ["x", "w", "b"], ["a"], domain="fn", slope=0.1),
             node("Dense", ["a", "v", "d"], ["e"], domain="fn", slope=0.3),
             node("Powered", ["e"], ["f"], domain="fn"),
             node("Powered", ["f"], ["g"], domain="fn", alpha=2.0),
             node("Either", ["g", "low"], ["i"], domain="fn"),
             node("Either", ["i", "top"], ["j"], domain="fn"),
             node("Clipped", ["j", "", "high"], ["y"], domain="fn"),
             node("ReduceSum", ["x"], ["z"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", T.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", T.FLOAT, ["N", 32]),
         helper.make_tensor_value_info("z", T.FLOAT, [1, 1])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()])
    return helper.make_model(graph, ir_version=9, opset_imports=IMPORTS, functions=functions())


def answers(path, inputs):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def ours(path, inputs, work):
    np.savez(f"{work}/x.npz", **inputs)
    done = subprocess.run([driver("run_model"), path, f"{work}/x.npz", f"{work}/y.npz"],
                          capture_output=True, text=True)
    return dict(np.load(f"{work}/y.npz")) if done.returncode == 0 else done.stderr


def check_hostile(path, model, work):
    """Calls that never end, and calls that double each time."""
    node = helper.make_node
    chain = [helper.make_function("fn", f"F{k}", ["x"], ["y"],
                                  [node(f"F{k + 1}", ["x"], ["h"], domain="fn"),
                                   node(f"F{k + 1}", ["h"], ["y"], domain="fn")], IMPORTS)
             for k in range(40)]
    loop = helper.make_function("fn", "F40", ["x"], ["y"], [node("F0", ["x"], ["y"], domain="fn")],
                                IMPORTS)
    leaf = helper.make_function("fn", "F40", ["x"], ["y"], [node("Neg", ["x"], ["y"])], IMPORTS)
    for last, words in ((loop, "calls itself"), (leaf, "expand to more than")):
        hostile = onnx.ModelProto()
        hostile.CopyFrom(model)
        del hostile.functions[:]
        hostile.functions.extend([*chain, last])
        del hostile.graph.node[:]
        hostile.graph.node.extend([node("F0", ["x"], ["y"], domain="fn"),
                                   node("ReduceSum", ["x"], ["z"])])
        onnx.save(hostile, path)
        said = ours(path, {"x": np.zeros((1, 64), np.float32)}, work)
        assert isinstance(said, str) and words in said, said


def main():
    weights = {n: RNG.standard_normal(s).astype(np.float32) / 8
               for n, s in {"w": (64, 48), "b": (48,), "v": (48, 32), "d": (32,)}.items()}
    weights |= {"high": np.float32(0.4), "low": np.float32(-1e6), "top": np.float32(1e6)}
    inputs = {"x": RNG.standard_normal((5, 64)).astype(np.float32)}
    model = network(weights)
    onnx.checker.check_model(model)
    with tempfile.TemporaryDirectory() as work:
        path, small = os.path.join(work, "model.onnx"), os.path.join(work, "small.onnx")
        onnx.save(model, path)
        wanted, got = answers(path, inputs), ours(path, inputs, work)
        for name, value in zip("yz", wanted, strict=True):
            assert np.allclose(got[name], value, rtol=1e-5, atol=1e-6), name
        np.save(f"{work}/calib.npy", RNG.standard_normal((64, 64)).astype(np.float32))
        done = subprocess.run([PROGRAM, "compress", path, "-o", small, "--calib",
                               f"{work}/calib.npy", "--max-error", "0.01"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = onnx.load(small)
        ours_there = {f.name for f in found.functions if f.domain == "fn"}
        assert ours_there == {"Dense", "Leaky", "Powered", "Clipped", "Either"}
        assert not {"w", "v"} & {t.name for t in found.graph.initializer}
        error = np.square(answers(small, inputs)[0] - wanted[0]).sum() / np.square(wanted[0]).sum()
        assert 0 < error < 0.05, error
        check_hostile(os.path.join(work, "hostile.onnx"), model, work)
    print(f"functions inlined, relative error after compress {error:.4f}")


if __name__ == "__main__":
    main()
