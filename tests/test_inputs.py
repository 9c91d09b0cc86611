#!/usr/bin/env python3
"""Inputs as graphs ask for them: made up, of different length, one at a time, several, tokens."""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from paths import PROGRAM

count = {"passed": 0, "failed": 0}
RNG = np.random.default_rng(7)


def check(name, condition, detail=""):
    count["passed" if condition else "failed"] += 1
    if not condition:
        print(f"FAIL {name}: {detail}")


def save(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 16)])
    onnx.checker.check_model(model)
    onnx.save(model, path)


def normal(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def compress(model, *arguments):
    """The report, or None; the result is model.small.onnx."""
    small = model.with_suffix(".small.onnx")
    done = subprocess.run([PROGRAM, "compress", model, "-o", small, "--quiet", "--json", "-",
                           *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        print(done.stderr)
    return json.loads(done.stdout) if done.returncode == 0 else None


def goal_samples(report, kept, seen):
    """How many samples the goal was measured on: those kept for it, or all where that was stricter."""
    return kept + seen if report["measured_on"] == "all calibration samples" else kept


def error(model, feeds):
    """Worst relative squared error of the result's outputs in onnxruntime."""
    pair = [ort.InferenceSession(str(p), providers=["CPUExecutionProvider"])
            for p in (model, model.with_suffix(".small.onnx"))]
    first, second = (s.run(None, feeds) for s in pair)
    return max(float(np.mean((a - b) ** 2) / np.var(a)) for a, b in zip(first, second))


def tokens(work):
    """Made-up tokens stay within the table, also behind a Cast; the state's batch follows its name."""
    model = work / "tokens.onnx"
    save(model,
         [helper.make_node("Cast", ["ids"], ["ids64"], to=TensorProto.INT64),
          helper.make_node("Gather", ["table", "ids64"], ["words"]),
          helper.make_node("ReduceMean", ["words"], ["mean"], axes=[1], keepdims=0),
          helper.make_node("Squeeze", ["state", "zero"], ["flat"]),
          helper.make_node("Add", ["mean", "flat"], ["both"]),
          helper.make_node("MatMul", ["both", "w"], ["out"]), helper.make_node("Tanh", ["out"], ["y"])],
         [("ids", TensorProto.INT32, ["N", "length"]), ("state", TensorProto.FLOAT, [1, "N", 24])],
         [("y", TensorProto.FLOAT, ["N", 12])],
         {"table": 4 * normal(40, 24), "w": normal(24, 12), "zero": np.array([0], np.int64)})
    report = compress(model, "--calib", "random")
    check("tokens: compressed", report is not None)
    if report is None:
        return
    check("tokens: warned of", any("random" in w for w in report["warnings"]), report["warnings"])
    check("tokens: measured", report["calibration_samples"] > 0, report)
    check("tokens: both tables measured",
          all(t["reason"] == "gauss-newton" for t in report["tensors"] if t["treatment"] == "coded"))
    feeds = {"ids": RNG.integers(0, 40, (5, 9)).astype(np.int32),
             "state": np.zeros((1, 5, 24), np.float32)}
    check("tokens: answers alike", error(model, feeds) < 0.05, error(model, feeds))


def open_sizes(work):
    """Where sizes are open the first is taken that the graph runs at; here it must be 48 high."""
    model = work / "sizes.onnx"
    save(model,
         [helper.make_node("Conv", ["x", "k"], ["a"], kernel_shape=[48, 3]),
          helper.make_node("GlobalAveragePool", ["a"], ["m"]), helper.make_node("Flatten", ["m"], ["f"]),
          helper.make_node("MatMul", ["f", "w"], ["z"]), helper.make_node("Reshape", ["a", "s"], ["b"]),
          helper.make_node("Softmax", ["z"], ["y"])],
         [("x", TensorProto.FLOAT, ["N", 3, "?", "W"])],
         [("y", TensorProto.FLOAT, ["N", 6]), ("b", TensorProto.FLOAT, ["N", 8, "M"])],
         {"k": normal(8, 3, 48, 3) / 10, "w": normal(8, 6), "s": np.array([0, 8, -1], np.int64)})
    report = compress(model, "--calib", "random")
    check("open sizes: compressed and measured", report and report["calibration_samples"] > 0, report)


def spelled_out(work):
    """A softmax as some exporters write it is told by its answers; what they only look like, by their sum."""
    x = RNG.standard_normal((60, 32)).astype(np.float32)
    np.save(work / "x.npy", x)
    for divisor, kind in (("t", "probabilities"), ("one", "values")):
        model = work / f"{kind}.onnx"
        save(model,
             [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Exp", ["z"], ["e"]),
              helper.make_node("ReduceSum", ["e", "axis"], ["t"]), helper.make_node("Div", ["e", divisor], ["y"])],
             [("x", TensorProto.FLOAT, ["N", 32])], [("y", TensorProto.FLOAT, ["N", 9])],
             {"w": normal(32, 9), "axis": np.array([1], np.int64), "one": np.ones(1, np.float32)})
        report = compress(model, "--calib", work / "x.npy")
        check(f"spelled out: {kind}", report and (report["kl"] is not None) == (kind == "probabilities"), report)


def unused_weight(work):
    """What no calibration input uses is kept, not rounded away."""
    model = work / "unused.onnx"
    save(model,
         [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Mul", ["x", "gate"], ["g"]),
          helper.make_node("MatMul", ["g", "v"], ["b"]), helper.make_node("Add", ["a", "b"], ["c"]),
          helper.make_node("Tanh", ["c"], ["y"])],
         [("x", TensorProto.FLOAT, ["N", 32])], [("y", TensorProto.FLOAT, ["N", 8])],
         {"w": normal(32, 8), "v": normal(32, 8),
          "gate": np.concatenate([np.ones(1), np.zeros(31)]).astype(np.float32)})
    x = RNG.standard_normal((100, 32)).astype(np.float32)
    x[:, 0] = 0  # the only element that the gate lets through
    np.save(work / "x.npy", x)
    report = compress(model, "--calib", work / "x.npy")
    reasons = {t["name"]: t["reason"] for t in report["tensors"]} if report else {}
    check("unused: said", "never use" in reasons.get("v", ""), reasons)
    x[:, 0] = 1
    check("unused: works once it is used", error(model, {"x": x}) < 0.05, error(model, {"x": x}))


def mostly_unused(work):
    """Where the data use few of the weights, these are not thought out of the ordinary."""
    model = work / "mostly.onnx"
    gate = np.concatenate([np.ones(1), np.zeros(31)]).astype(np.float32)
    save(model,
         [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Mul", ["x", "gate"], ["g"]),
          helper.make_node("MatMul", ["g", "v"], ["b"]), helper.make_node("ReduceSum", ["b", "axis"], ["s"]),
          helper.make_node("Add", ["a", "s"], ["c"]), helper.make_node("Tanh", ["c"], ["y"])],
         [("x", TensorProto.FLOAT, ["N", 32])], [("y", TensorProto.FLOAT, ["N", 6])],
         {"w": normal(32, 6), "v": normal(32, 640), "gate": gate, "axis": np.array([1], np.int64)})
    x = RNG.standard_normal((100, 32)).astype(np.float32)
    x[:, 0] = 0
    np.save(work / "x.npy", x)
    report = compress(model, "--calib", work / "x.npy")
    treatment = {t["name"]: t["treatment"] for t in report["tensors"]} if report else {}
    check("mostly unused: both coded", treatment.get("w") == treatment.get("v") == "coded", report)


def nothing_to_find(work):
    """Samples without anything to find, as most recordings have no wake word, do not make the model deaf."""
    model = work / "deaf.onnx"
    w, v = normal(64, 64), np.abs(normal(64, 1)) * 4
    save(model,
         [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
          helper.make_node("MatMul", ["b", "v"], ["z"]), helper.make_node("Add", ["z", "low"], ["l"]),
          helper.make_node("Sigmoid", ["l"], ["y"])],
         [("x", TensorProto.FLOAT, ["N", 64])], [("y", TensorProto.FLOAT, ["N", 1])],
         {"w": w, "v": v, "low": np.float32([-12])})
    quiet, loud = (RNG.standard_normal((100, 64)).astype(np.float32) * size for size in (0.1, 1.2))
    np.save(work / "quiet.npy", quiet)
    report = compress(model, "--calib", work / "quiet.npy")
    check("nothing to find: said", any("nearly the same" in w for w in report["warnings"]), report)
    check("nothing to find: hears", error(model, {"x": loud}) < 0.1, error(model, {"x": loud}))
    np.save(work / "both.npy", np.concatenate([quiet, loud])[RNG.permutation(200)])
    report = compress(model, "--calib", work / "both.npy")
    check("something to find: no warning", not report["warnings"], report["warnings"])


def batch_of_one(work):
    """A graph that declares a free batch but mixes its samples is run one at a time."""
    model = work / "one.onnx"
    save(model,
         [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["z"]),
          helper.make_node("ReduceMean", ["z"], ["y"], axes=[0], keepdims=1)],
         [("x", TensorProto.FLOAT, ["N", 4, 16])], [("y", TensorProto.FLOAT, [1, 10])],
         {"w": normal(16, 10), "s": np.array([-1, 16], np.int64)})
    np.save(work / "x.npy", RNG.standard_normal((60, 4, 16)).astype(np.float32))
    report = compress(model, "--calib", work / "x.npy", "--output", "y=logits")
    check("one at a time: every sample answered alone",
          report and report["samples"] == goal_samples(report, 12, 48) and
          report["calibration_samples"] == 48, report)


def lengths(work):
    """Samples of different length: a folder of .npz files, or of test_data_set_* folders."""
    model = work / "lengths.onnx"
    save(model,
         [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
          helper.make_node("ReduceMean", ["r"], ["m"], axes=[1], keepdims=0),
          helper.make_node("MatMul", ["m", "v"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])],
         [("x", TensorProto.FLOAT, ["N", "T", 16])], [("y", TensorProto.FLOAT, ["N", 5])],
         {"w": normal(16, 20), "v": normal(20, 5)})
    files, sets = work / "files", work / "sets"
    files.mkdir()
    for k in range(20):
        x = RNG.standard_normal((1, 3 + k % 5, 16)).astype(np.float32)
        np.savez(files / f"{k:03}.npz", x=x)
        folder = sets / f"test_data_set_{k}"
        folder.mkdir(parents=True)
        (folder / "input_0.pb").write_bytes(numpy_helper.from_array(x, "x").SerializeToString())
    reports = [compress(model, "--calib", data) for data in (files, sets)]
    check("lengths: both kinds of folder", all(reports))
    if all(reports):
        check("lengths: a sample each",
              all(r["samples"] == goal_samples(r, 4, 16) and r["calibration_samples"] == 16
                  for r in reports), reports)
        check("lengths: the same data", len({r["kl"] for r in reports}) == 1, [r["kl"] for r in reports])
    np.savez(files / "999.npz", x=np.zeros((1, 3, 17), np.float32))
    done = subprocess.run([PROGRAM, "compress", model, "-o", work / "no.onnx", "--calib", files],
                          capture_output=True, text=True, timeout=300)
    check("lengths: a wrong sample is refused", done.returncode == 5 and "x" in done.stderr, done.stderr)


def table_found(name, model, data):
    """The tensor `table` is rounded more finely, the file is small, and answers as before. The tensors' reasons."""
    made = compress(model, "--calib", data, "--scope", "tensor")
    reasons = {t["name"]: t["reason"] for t in made["tensors"]}
    check(f"{name}: found", "times finer" in reasons["table"], reasons)
    check(f"{name}: ratio", made["ratio"] > 3, made["ratio"])
    fresh = RNG.standard_normal((100, 64)).astype(np.float32)
    check(f"{name}: answers", error(model, {"x": fresh}) < 0.03, error(model, {"x": fresh}))
    return reasons


def sensitive(work):
    """A table just below a threshold: importance sees nothing of it, a coarse rounding jumps over."""
    model, data = work / "sensitive.onnx", work / "sensitive.npy"
    np.save(data, RNG.standard_normal((200, 64)).astype(np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Sub", ["table", "limit"], ["c"]), helper.make_node("Relu", ["c"], ["d"]),
             helper.make_node("Mul", ["d", "loud"], ["e"]), helper.make_node("Mul", ["b", "e"], ["f"]),
             helper.make_node("Add", ["b", "f"], ["g"]), helper.make_node("MatMul", ["g", "w2"], ["y"])]
    table = RNG.uniform(0.498, 0.4999, 64).astype(np.float32)
    save(model, nodes, [("x", TensorProto.FLOAT, ["N", 64])], [("y", TensorProto.FLOAT, ["N", 10])],
         {"w1": normal(64, 64), "w2": normal(64, 10), "table": table, "limit": np.float32([0.5]),
          "loud": np.float32([1e5])})
    reasons = table_found("sensitive", model, data)
    check("sensitive: no other", not any("finer" in reasons[n] for n in ("w1", "w2")), reasons)


def closed_gate(work):
    """A table that keeps a gate closed and hardly matters else: by its importance it may round to zeros."""
    model, data = work / "gate.onnx", work / "gate.npy"
    np.save(data, RNG.standard_normal((200, 64)).astype(np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Sub", ["limit", "table"], ["c"]), helper.make_node("Relu", ["c"], ["d"]),
             helper.make_node("Mul", ["d", "loud"], ["e"]), helper.make_node("Add", ["b", "e"], ["f"]),
             helper.make_node("Mul", ["table", "faint"], ["h"]), helper.make_node("Add", ["f", "h"], ["g"]),
             helper.make_node("MatMul", ["g", "w2"], ["y"])]
    save(model, nodes, [("x", TensorProto.FLOAT, ["N", 64])], [("y", TensorProto.FLOAT, ["N", 10])],
         {"w1": normal(64, 64), "w2": normal(64, 10), "limit": np.float32([0.5]), "loud": np.float32([100]),
          "faint": np.float32([1e-5]), "table": RNG.uniform(0.8, 1.2, 64).astype(np.float32)})
    table_found("closed gate", model, data)


def many_classes(work):
    """Each of thousands of probabilities hardly varies; the answers do."""
    model, data = work / "many.onnx", work / "many.npy"
    np.save(data, RNG.standard_normal((100, 32)).astype(np.float32))
    save(model, [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])],
         [("x", TensorProto.FLOAT, ["N", 32])], [("y", TensorProto.FLOAT, ["N", 6000])], {"w": normal(32, 6000)})
    report = compress(model, "--calib", data)
    check("many classes: no warning", not report["warnings"], report["warnings"])


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for test in (tokens, open_sizes, unused_weight, batch_of_one, lengths, sensitive, spelled_out,
                     mostly_unused, nothing_to_find, closed_gate,
                     many_classes):
            test(work)
    print(f"{count['passed']} passed, {count['failed']} failed")
    sys.exit(count["failed"] > 0)


main()
