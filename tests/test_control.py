# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan: outputs against onnxruntime's, gradients of weights inside and outside of bodies
against differences, and weights of bodies compressed and opened again.
"""
import os
import subprocess
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from paths import PROGRAM, ROOT, driver
from test_executor import compare

RNG = np.random.default_rng(3)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.uniform(-1, 1, shape).astype(np.float32), name)


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))


def constant_weight(name, *shape):
    return helper.make_node("Constant", [], [name], value=weight("", *shape))


def value(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def body(name, nodes, inputs, outputs, weights=()):
    return helper.make_graph(nodes, name, inputs, [value(*o) if isinstance(o, tuple) else value(o)
                                                   for o in outputs], list(weights))


node = helper.make_node


def if_weights():
    """A condition from the data; weights in both branches, as initializer and as Constant; the same
    name in both; a nested If; a captured value and a captured weight."""
    inner = node("If", ["deep"], ["q"],
                 then_branch=body("t2", [constant_weight("u", 6), node("Mul", ["p", "u"], ["q1"])],
                                  [], ["q1"]),
                 else_branch=body("e2", [node("Mul", ["p", "w"], ["q2"])], [], ["q2"]))
    then = body("t", [node("MatMul", ["a", "v"], ["p"]), node("ReduceMax", ["p"], ["m"], keepdims=0),
                      node("Greater", ["m", "half"], ["deep"]), inner], [], ["q"],
                [weight("v", 6, 6)])
    other = body("e", [constant_weight("v", 6, 6), node("MatMul", ["a", "v"], ["p"]),
                       node("Tanh", ["p"], ["r"])], [], ["r"])
    nodes = [node("MatMul", ["x", "b"], ["a"]), node("ReduceSum", ["x"], ["s"], keepdims=0),
             constant("zero", np.float32(0)), constant("half", np.float32(1)),
             node("Greater", ["s", "zero"], ["c"]),
             node("If", ["c"], ["y"], then_branch=then, else_branch=other),
             node("Add", ["y", "a"], ["z"])]
    return nodes, ["y", "z"], [weight("b", 4, 6), weight("w", 6)], {"x": (3, 4)}


def if_constant():
    """A condition that folds, as torch writes it: Equal(Shape…), here of a constant."""
    nodes = [constant("list", np.zeros(3, np.int64)), node("Shape", ["list"], ["n"]),
             constant("three", np.array([3])), node("Equal", ["n", "three"], ["c"]),
             node("If", ["c"], ["y"],
                  else_branch=body("e", [node("MatMul", ["x", "k"], ["e1"])], [], ["e1"],
                                   [weight("k", 4, 8)]),
                  then_branch=body("t", [node("MatMul", ["x", "l"], ["t1"])], [], ["t1"],
                                   [weight("l", 4, 8)]))]
    return nodes, ["y"], [], {"x": (3, 4)}


def loop_carried():
    """h = tanh(h W + x b + i), stacked; stops by its condition or its count; results unused and used."""
    trips = [node("MatMul", ["h", "w"], ["hw"]), node("MatMul", ["x", "b"], ["xb"]),
             node("Add", ["hw", "xb"], ["sum"]), node("Cast", ["i"], ["at"], to=TensorProto.FLOAT),
             constant("tenth", np.float32(0.1)), node("Mul", ["at", "tenth"], ["part"]),
             node("Add", ["sum", "part"], ["all"]), node("Tanh", ["all"], ["h2"]),
             node("Mul", ["h2", "g"], ["out"]), node("ReduceMax", ["h2"], ["most"], keepdims=0),
             constant("limit", np.float32(0.999)), node("Less", ["most", "limit"], ["go2"])]
    inner = body("b", trips, [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
                              value("h")], [("go2", TensorProto.BOOL, []), "h2", "out"],
                 [weight("w", 6, 6), weight("g", 6)])
    nodes = [constant("n", np.array(4)), node("MatMul", ["x", "b"], ["h0"]),
             node("Loop", ["n", "", "h0"], ["h4", "all_h"], body=inner),
             node("ReduceMean", ["all_h"], ["mean"], keepdims=0)]
    return nodes, ["h4", "all_h", "mean"], [weight("b", 4, 6)], {"x": (3, 4)}


def loop_nested():
    """A loop in a loop, an If within that takes turns, values swapped from round to round."""
    turn = node("If", ["odd"], ["n2"],
                then_branch=body("t", [node("MatMul", ["m", "w"], ["n3"])], [], ["n3"]),
                else_branch=body("e", [node("Mul", ["m", "v"], ["n4"])], [], ["n4"],
                                 [weight("v", 4)]))
    deep = body("d", [constant("two", np.array(2)), node("Mod", ["j", "two"], ["rest"]),
                      node("Cast", ["rest"], ["odd"], to=TensorProto.BOOL), turn,
                      node("Sin", ["n2"], ["n5"]), node("Identity", ["goj"], ["goj2"]),
                      node("Add", ["n5", "a"], ["n6"])],
                [value("j", TensorProto.INT64, []), value("goj", TensorProto.BOOL, []), value("m")],
                [("goj2", TensorProto.BOOL, []), "n6"])
    outer = body("o", [node("Identity", ["go"], ["go2"]), constant("three", np.array(3)),
                       node("Loop", ["three", "go", "a"], ["a2"], body=deep),
                       node("Identity", ["a"], ["b2"]), node("Mul", ["a2", "b"], ["seen"])],
                 [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("a"),
                  value("b")], [("go2", TensorProto.BOOL, []), "a2", "b2", "seen"])
    nodes = [constant("n", np.array(3)), constant("yes", np.array(True)),
             node("Mul", ["x", "s"], ["start"]),
             node("Loop", ["n", "yes", "start", "x"], ["p", "q", "r"], body=outer)]
    return nodes, ["p", "q", "r"], [weight("w", 4, 4), weight("s", 4)], {"x": (3, 4)}


def scan(**attributes):
    def make():
        inner = body("b", [node("MatMul", ["h", "w"], ["hw"]), node("Add", ["hw", "t"], ["s"]),
                           node("Add", ["s", "k"], ["s2"]), node("Sigmoid", ["s2"], ["h2"]),
                           node("Mul", ["h2", "g"], ["o"]), node("Mul", ["h2", "t"], ["o2"])],
                     [value("h", shape=[3, 4]), value("t", shape=[3, 4]),
                      value("k", shape=[4])], ["h2", "o", "o2"], [weight("w", 4, 4)])
        shapes = {"x": (3, 5, 4) if "scan_input_axes" in attributes else (5, 3, 4), "k0": (5, 4)}
        nodes = [node("Mul", ["k0", "kk"], ["k1"]), node("Mul", ["x", "g"], ["x1"]),
                 node("Scan", ["h0", "x1", "k1"], ["h_end", "all", "all2"], body=inner,
                      num_scan_inputs=2, **attributes)]
        return nodes, ["h_end", "all", "all2"], [weight("h0", 3, 4), weight("g", 4),
                                                 weight("kk", 5, 4)], shapes
    return make


MODELS = {
    "If": if_weights, "If of a constant": if_constant, "Loop": loop_carried,
    "nested Loop": loop_nested, "Scan": scan(),
    "Scan along axes": scan(scan_input_axes=[1, 0], scan_input_directions=[1, 0],
                            scan_output_axes=[1, -1], scan_output_directions=[0, 1]),
}


def make(build, path):
    nodes, outputs, weights, shapes = build()
    graph = helper.make_graph(nodes, "g", [value(n, shape=s) for n, s in shapes.items()],
                              [value(o) for o in outputs], weights)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 16)]),
              path)
    return shapes


def main():
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/m.onnx"
        for label, build in MODELS.items():
            checked = 0
            for seed in range(6):
                shapes = make(build, path)
                rng = np.random.default_rng(seed)
                arrays = {n: rng.uniform(-1, 1, s).astype(np.float32) for n, s in shapes.items()}
                assert compare(str(driver("run_model")), label, path, arrays, folder), label
                done = subprocess.run([driver("check_gradients"), path, f"{folder}/x.npz"],
                                      capture_output=True, text=True)
                assert done.returncode == 0, (label, seed, done.stderr)
                checked += int(done.stdout)
            print(f"{label}: outputs agree, {checked} gradients")
            assert checked >= 30, label


if __name__ == "__main__":
    main()
