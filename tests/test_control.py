# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan: outputs against onnxruntime's, gradients of weights inside and outside of bodies
against differences, and weights of bodies compressed and opened again.
"""
import os
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
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
                 then_branch=body("t2", [constant_weight("u", 8), node("Mul", ["p", "u"], ["q1"])],
                                  [], ["q1"]),
                 else_branch=body("e2", [node("Mul", ["p", "w"], ["q2"])], [], ["q2"]))
    then = body("t", [node("MatMul", ["a", "v"], ["p"]), node("ReduceMax", ["p"], ["m"], keepdims=0),
                      node("Greater", ["m", "half"], ["deep"]), inner], [], ["q"],
                [weight("v", 8, 8)])
    other = body("e", [constant_weight("v", 8, 8), node("MatMul", ["a", "v"], ["p"]),
                       node("Tanh", ["p"], ["r"])], [], ["r"])
    nodes = [node("MatMul", ["x", "b"], ["a"]), node("ReduceSum", ["x"], ["s"], keepdims=0),
             constant("zero", np.float32(0)), constant("half", np.float32(1)),
             node("Greater", ["s", "zero"], ["c"]),
             node("If", ["c"], ["y"], then_branch=then, else_branch=other),
             node("Add", ["y", "a"], ["z"])]
    return nodes, ["y", "z"], [weight("b", 8, 8), weight("w", 8)], {"x": (3, 8)}


def if_constant():
    """A condition that folds, as torch writes it: Equal(Shape…), here of a constant."""
    nodes = [constant("list", np.zeros(3, np.int64)), node("Shape", ["list"], ["n"]),
             constant("three", np.array([3])), node("Equal", ["n", "three"], ["c"]),
             node("If", ["c"], ["y"],
                  else_branch=body("e", [node("MatMul", ["x", "k"], ["e1"])], [], ["e1"],
                                   [weight("k", 8, 8)]),
                  then_branch=body("t", [node("MatMul", ["x", "l"], ["t1"])], [], ["t1"],
                                   [weight("l", 8, 8)]))]
    return nodes, ["y"], [], {"x": (3, 8)}


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
                 [weight("w", 8, 8), weight("g", 8)])
    nodes = [constant("n", np.array(4)), node("MatMul", ["x", "b"], ["h0"]),
             node("Loop", ["n", "", "h0"], ["h4", "all_h"], body=inner),
             node("ReduceMean", ["all_h"], ["mean"], keepdims=0)]
    return nodes, ["h4", "all_h", "mean"], [weight("b", 8, 8)], {"x": (3, 8)}


def loop_nested():
    """A loop in a loop, an If within that takes turns, values swapped from round to round."""
    turn = node("If", ["odd"], ["n2"],
                then_branch=body("t", [node("MatMul", ["m", "w"], ["n3"])], [], ["n3"]),
                else_branch=body("e", [node("Mul", ["m", "v"], ["n4"])], [], ["n4"],
                                 [weight("v", 8)]))
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
    return nodes, ["p", "q", "r"], [weight("w", 8, 8), weight("s", 8)], {"x": (3, 8)}


def scan(**attributes):
    def make():
        inner = body("b", [node("MatMul", ["h", "w"], ["hw"]), node("Add", ["hw", "t"], ["s"]),
                           node("Add", ["s", "k"], ["s2"]), node("Sigmoid", ["s2"], ["h2"]),
                           node("Mul", ["h2", "g"], ["o"]), node("Mul", ["h2", "t"], ["o2"])],
                     [value("h", shape=[3, 8]), value("t", shape=[3, 8]),
                      value("k", shape=[8])], ["h2", "o", "o2"], [weight("w", 8, 8)])
        shapes = {"x": (3, 5, 8) if "scan_input_axes" in attributes else (5, 3, 8), "k0": (5, 8)}
        nodes = [node("Mul", ["k0", "kk"], ["k1"]), node("Mul", ["x", "g"], ["x1"]),
                 node("Scan", ["h0", "x1", "k1"], ["h_end", "all", "all2"], body=inner,
                      num_scan_inputs=2, **attributes)]
        return nodes, ["h_end", "all", "all2"], [weight("h0", 3, 8), weight("g", 8),
                                                 weight("kk", 5, 8)], shapes
    return make


def if_result():
    """A branch whose result is its weight itself."""
    nodes = [node("ReduceSum", ["x"], ["s"], keepdims=0), constant("zero", np.float32(0)),
             node("Greater", ["s", "zero"], ["c"]),
             node("If", ["c"], ["m"],
                  then_branch=body("t", [], [], ["v"], [weight("v", 8, 8)]),
                  else_branch=body("e", [constant_weight("k", 8, 8)], [], ["k"])),
             node("MatMul", ["x", "m"], ["y"])]
    return nodes, ["y"], [], {"x": (3, 8)}


def sequences():
    """Pieces of a product, one of them taken out, a weight put in, and all joined again."""
    nodes = [node("MatMul", ["x", "b"], ["h"]), constant("two", np.array(2)),
             node("SplitToSequence", ["h", "two"], ["s"], axis=1), constant("one", np.array(1)),
             node("SequenceAt", ["s", "one"], ["p"]), node("Tanh", ["p"], ["q"]),
             node("SequenceErase", ["s", "one"], ["r"]),
             node("SequenceInsert", ["r", "w"], ["t"]), node("SequenceInsert", ["t", "q", "one"], ["u"]),
             node("ConcatFromSequence", ["u"], ["y"], axis=1),
             node("SequenceConstruct", ["q", "p", "q"], ["v"]),
             node("ConcatFromSequence", ["v"], ["z"], axis=0, new_axis=1),
             node("SequenceLength", ["u"], ["n"]), node("Cast", ["n"], ["m"], to=TensorProto.FLOAT)]
    return nodes, ["y", "z", "m"], [weight("b", 8, 8), weight("w", 3, 16)], {"x": (3, 8)}


def loop_sequence():
    """A list that grows in a loop, as scripted models write it."""
    trips = [node("MatMul", ["h", "w"], ["hw"]), node("Tanh", ["hw"], ["h2"]),
             node("SequenceInsert", ["list", "h2"], ["list2"]), node("Identity", ["go"], ["go2"])]
    inner = body("b", trips, [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
                              value("h"), helper.make_tensor_sequence_value_info(
                                  "list", TensorProto.FLOAT, None)],
                 [("go2", TensorProto.BOOL, []), "h2"], [weight("w", 8, 8)])
    inner.output.append(helper.make_tensor_sequence_value_info("list2", TensorProto.FLOAT, None))
    nodes = [constant("n", np.array(4)), node("MatMul", ["x", "b"], ["h0"]),
             node("SequenceEmpty", [], ["none"]),
             node("Loop", ["n", "", "h0", "none"], ["h4", "all"], body=inner),
             node("ConcatFromSequence", ["all"], ["y"], axis=1)]
    return nodes, ["y", "h4"], [weight("b", 8, 8)], {"x": (3, 8)}


MODELS = {
    "sequences": sequences, "Loop with a sequence": loop_sequence,
    "If of weights": if_result,
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


def bodies(graph):
    for each in graph.node:
        for attribute in each.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g
                yield from bodies(attribute.g)


def large(graph):
    """Float tensors of a graph that could be coded."""
    tensors = list(graph.initializer) + [a.t for n in graph.node for a in n.attribute
                                         if n.op_type == "Constant"]
    return [t for t in tensors if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 48]


def answers(path, arrays, optimized=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = optimized
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, arrays)


def compress(label, form, folder, shapes):
    """Small, it opens and answers as what it restores to, the decoder folds away, and no body keeps a
    weight; both branches count (the calibration takes both)."""
    model, small, back = f"{folder}/m.onnx", f"{folder}/{form}.onnx", f"{folder}/back.onnx"
    rng = np.random.default_rng(1)
    np.savez(f"{folder}/calibration.npz", **{
        n: rng.uniform(-1, 1, (40, *s)).astype(np.float32) for n, s in shapes.items()})
    for command in (["compress", model, "-o", small, "--form", form,
                     "--calib", f"{folder}/calibration.npz"], ["restore", small, "-o", back]):
        done = subprocess.run([PROGRAM, *command], capture_output=True, text=True)
        assert done.returncode == 0, (label, command, done.stderr)
    written = onnx.load(small)
    if form != "plain":
        assert not any(large(g) for g in bodies(written.graph)), label
    compared = 0
    for seed in range(4):
        arrays = {n: np.random.default_rng(seed).uniform(-1, 1, s).astype(np.float32)
                  for n, s in shapes.items()}
        expected = answers(model, arrays)
        found = answers(small, arrays, f"{folder}/folded.onnx")
        for ours, restored, theirs in zip(found, answers(back, arrays), expected):
            assert np.allclose(ours, restored, atol=1e-6), (label, form)
        # A loop that stops by its own answers may, with rounded weights, stop at another round.
        if all(ours.shape == theirs.shape for ours, theirs in zip(found, expected)):
            compared += 1
            for ours, theirs in zip(found, expected):
                assert np.square(ours - theirs).mean() < 0.05 * max(theirs.var(), 0.01), (label, form)
    assert compared, (label, form)
    folded = {n.op_type for n in onnx.load(f"{folder}/folded.onnx").graph.node}
    assert not folded & {"CumSum", "ScatterElements", "Gather", "Split"}, (label, form, folded)


def runaway(folder):
    """A loop whose rounds a sample counts: some samples cannot be run. The importance's own come after
    the goal's (every fifth), whose answers are there by then."""
    trips = [node("Identity", ["go"], ["go2"]), node("Mul", ["h", "half"], ["h2"])]
    inner = body("b", trips, [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
                              value("h")], [("go2", TensorProto.BOOL, []), "h2"])
    nodes = [constant("half", np.float32(0.5)), node("MatMul", ["x", "w"], ["h0"]),
             node("ReduceMax", ["x"], ["most"], keepdims=0),
             node("Cast", ["most"], ["n"], to=TensorProto.INT64),
             node("Loop", ["n", "", "h0"], ["y"], body=inner)]
    make(lambda: (nodes, ["y"], [weight("w", 64, 64)], {"x": (1, 64)}), f"{folder}/m.onnx")
    for bad in (7, 9):
        samples = np.full((10, 1, 64), 2, np.float32)
        samples[bad] = 1e9
        np.save(f"{folder}/x.npy", samples)
        command = [PROGRAM, "compress", f"{folder}/m.onnx", "-o", f"{folder}/small.onnx", "--calib",
                   f"{folder}/x.npy"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (bad, done.stderr)
        assert "cannot be run here: y (Loop)" in done.stdout + done.stderr, (bad, done.stderr)
        done = subprocess.run(command + ["--finetune", "1"], capture_output=True, text=True)
        assert done.returncode == 4 and "nothing can be trained" in done.stderr, (bad, done.stderr)
        assert "(null)" not in done.stderr, done.stderr
    print("samples that cannot be run: importance from the weights")


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
            assert checked >= 30, label
            for form in ("function", "inlined", "lookup", "plain"):
                compress(label, form, folder, shapes)
            print(f"{label}: outputs agree, {checked} gradients; all forms open")
        runaway(folder)


if __name__ == "__main__":
    main()
