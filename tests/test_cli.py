#!/usr/bin/env python3
"""The command line as a user meets it: every command, good input and bad, on real models.

Bad input must give one clear line on stderr, a non-zero exit code, no output file, no temporary
file, and leave an existing output as it was. Runs the sanitizer build, so that a bad access fails.
"""
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from paths import PROGRAM, ROOT

LENET = ROOT / "testdata" / "lenet5_mnist.onnx"
IMAGES = ROOT / "testdata" / "mnist_calibration.npy"

count = {"passed": 0, "failed": 0}


def check(name, condition, detail=""):
    count["passed" if condition else "failed"] += 1
    if not condition:
        print(f"FAIL {name}: {detail}")


def run(*arguments, **options):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          **options)


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


def refused(name, work, *arguments, says=(), code=None, **options):
    """One line, a non-zero exit code, no output, an existing output untouched."""
    out = work / "out.onnx"
    out.write_bytes(b"kept")
    done = run(*arguments, "-o", out, **options)
    lines = [line for line in done.stderr.splitlines() if "note:" not in line]
    check(name + ": fails", done.returncode not in (0, -11, -6), (done.returncode, done.stderr[-800:]))
    check(name + ": no sanitizer report", "ERROR: " not in done.stderr and "runtime error" not in done.stderr,
          done.stderr[-1500:])
    check(name + ": one line", len(lines) == 1 and lines[0].startswith("onnxpress"), done.stderr[-800:])
    for word in says:
        check(f"{name}: says {word}", word in done.stderr, done.stderr[-400:])
    if code is not None:
        check(name + ": code", done.returncode == code, done.returncode)
    check(name + ": output as it was", out.read_bytes() == b"kept")
    check(name + ": no temporary file", not leftovers(work), leftovers(work))
    out.unlink()


def softmax_log(x):
    x = x.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def answers(path, images):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(
        None, {"image": images})[0]


def good_input(work):
    """compress, inspect, hessian, evaluate, verify, restore on LeNet-5."""
    small, report = work / "small.onnx", work / "report.json"
    images = np.load(IMAGES)
    few = work / "few.npy"
    np.save(few, images[:200])
    done = run("compress", LENET, "-o", small, "--calib", few, "--json", report, "--threads", 2)
    check("compress", done.returncode == 0, done.stderr)
    r = json.loads(report.read_text())
    for key in ("original_bytes", "compressed_bytes", "ratio", "bits_per_weight", "kl", "top1_agreement",
                "seconds", "peak_rss_bytes"):
        check(f"json has {key}", isinstance(r.get(key), (int, float)), r.get(key))
    for tensor in r["tensors"]:
        check("json tensors", {"name", "shape", "levels", "bits", "distortion"} <= tensor.keys(), tensor)
    check("bytes are those on disk", r["compressed_bytes"] == small.stat().st_size, r["compressed_bytes"])
    check("original bytes", r["original_bytes"] == LENET.stat().st_size)
    check("ratio is theirs", abs(r["ratio"] - LENET.stat().st_size / small.stat().st_size) < 1e-9)
    check("no progress bar off a terminal", "\r" not in done.stderr)
    check("a table", "times smaller" in done.stdout, done.stdout)
    again = work / "again.onnx"
    run("compress", LENET, "-o", again, "--calib", few, "--quiet", "--threads", 1)
    check("same bytes with one thread", again.read_bytes() == small.read_bytes())

    test = np.load(ROOT / "testdata" / "mnist_test.npz")
    x = test["image"][:1000].astype(np.float32) / 255
    before, after = answers(LENET, x), answers(small, x)
    check("answers as before", np.mean(before.argmax(1) == after.argmax(1)) > 0.99)
    held = images[:200].astype(np.float32) / 255
    held = held if r["measured_on"].startswith("all") else held[4::5]
    p, q = softmax_log(answers(LENET, held)), softmax_log(answers(small, held))
    kl = float(np.mean(np.sum(np.exp(p) * (p - q), 1)))
    check("reported KL is onnxruntime's", abs(kl - r["kl"]) <= 1e-6 + 0.01 * kl, (kl, r["kl"]))

    np.save(work / "x.npy", test["image"][:1000])
    np.save(work / "labels.npy", test["label"][:1000].astype(np.int64))
    done = run("verify", LENET, small, "--data", work / "x.npy", "--labels", work / "labels.npy",
               "--json", "-")
    check("verify", done.returncode == 0, done.stderr)
    v = json.loads(done.stdout)
    check("verify agrees with onnxruntime", abs(v["accuracy_small"] - np.mean(
        after.argmax(1) == test["label"][:1000])) < 1e-9, v)
    done = run("evaluate", small, "--data", work / "x.npy", "--labels", work / "labels.npy", "--json", "-")
    check("evaluate agrees with verify", json.loads(done.stdout)["accuracy"] == v["accuracy_small"])

    plain = work / "plain.onnx"
    check("restore", run("restore", small, "-o", plain).returncode == 0)
    check("restored answers", np.array_equal(answers(plain, x), after) or
          np.allclose(answers(plain, x), after, atol=1e-5))
    ops = [n.op_type for n in onnx.load(plain).graph.node]
    check("restored graph", ops == [n.op_type for n in onnx.load(LENET).graph.node], ops)
    done = run("inspect", small, "--json", "-")
    check("inspect", json.loads(done.stdout)["form"] == "function", done.stderr)
    check("inspect original", run("inspect", LENET).returncode == 0)

    h1, h2 = work / "h1.npz", work / "h2.npz"
    check("hessian", run("hessian", LENET, "--calib", few, "-o", h1, "--threads", 1).returncode == 0)
    run("hessian", LENET, "--calib", few, "-o", h2, "--threads", 2)
    check("hessian: same bytes for any threads", h1.read_bytes() == h2.read_bytes())
    shapes = {t.name: tuple(t.dims) for t in onnx.load(LENET).graph.initializer}
    check("hessian by initializer name", {k: v.shape for k, v in np.load(h1).items()} == shapes)
    done = run("compress", LENET, "-o", small, "--calib", few, "--hessian", h1, "--quiet")
    check("compress --hessian", done.returncode == 0, done.stderr)


def goals(work):
    few, labels = work / "few.npy", work / "few_labels.npy"
    test = np.load(ROOT / "testdata" / "mnist_test.npz")
    np.save(few, test["image"][:100])
    np.save(labels, test["label"][:100].astype(np.int64))
    out = work / "goal.onnx"
    cases = [(("--ratio", 12), lambda r: 12 <= r["ratio"] < 12.2),
             (("--bits", 2.5), lambda r: 2.4 < r["bits_per_weight"] <= 2.5),
             (("--max-kl", 0.01), lambda r: 0.002 < r["kl"] <= 0.01),
             (("--max-drop", 1, "--labels", labels),
              lambda r: r["accuracy"] - r["accuracy_small"] <= 0.01 and r["ratio"] > 25),
             (("--output", "logits=values"), lambda r: r["relative_error"] <= 0.01 and r["kl"] is None),
             (("--method", "kmeans"), lambda r: r["method"] == "kmeans" and r["ratio"] > 8),
             (("--method", "kmeans", "--levels", 9), lambda r: r["levels"] == 9),
             (("--lambda", 1e-9, "--levels", 5), lambda r: r["step"] == 1e-9 and r["levels"] <= 5),
             (("--method", "uniform"), lambda r: r["method"] == "uniform" and r["ratio"] > 12),
             (("--lambda", 1e-9), lambda r: r["method"] == "ecsq" and r["step"] == 1e-9),
             (("--importance", "becker-lecun"), lambda r: r["importance"] == "becker-lecun"),
             (("--importance", "empirical-fisher", "--labels", labels),
              lambda r: r["importance"] == "empirical-fisher" and r["accuracy"] > 0.95),
             (("--scope", "model"), lambda r: r["scope"] == "model" and r["ratio"] > 8),
             (("--validate", few, "--labels", labels), lambda r: r["measured_on"] == "validation data"),
             (("--memory", "2M"), lambda r: r["ratio"] > 25),
             (("--form", "lookup"), lambda r: r["form"] == "lookup" and r["ratio"] > 3.5),
             (("--form", "plain"), lambda r: r["form"] == "plain" and r["ratio"] > 0.99)]
    for arguments, holds in cases:
        done = run("compress", LENET, "-o", out, "--calib", few, *arguments, "--json", "-")
        report = json.loads(done.stdout) if done.returncode == 0 else {}
        check(f"goal {arguments}", done.returncode == 0 and holds(report),
              done.stderr or {k: v for k, v in report.items() if k != "tensors"})
    done = run("compress", LENET, "-o", out, "--calib", few, "--sidecar", "always", "--json", "-")
    r = json.loads(done.stdout)
    data = work / "goal.onnx.data"
    check("sidecar", r["compressed_bytes"] == out.stat().st_size + data.stat().st_size, r["ratio"])
    copy = work / "copy.onnx"
    shutil.copy(LENET, copy)
    done = run("compress", copy)
    check("no options", done.returncode == 0 and (work / "copy.small.onnx").exists(), done.stderr)
    check("no data: says so", "no calibration data" in done.stderr, done.stderr)
    check("no data: smaller", (work / "copy.small.onnx").stat().st_size * 4 < LENET.stat().st_size)


def finetune(work):
    """Training with labels and pruning; the same bytes after an interruption; then compression."""
    test = np.load(ROOT / "testdata" / "mnist_test.npz")
    np.save(work / "train.npy", test["image"][:256])
    np.save(work / "train_labels.npy", test["label"][:256].astype(np.int64))
    pruned, small = work / "pruned.onnx", work / "pruned.small.onnx"
    arguments = ("finetune", LENET, "--calib", work / "train.npy", "--labels", work / "train_labels.npy",
                 "--epochs", 2, "--batch", 16, "--rate", "1e-4", "--prune", "0.6", "--augment", "shift")
    done = run(*arguments, "-o", pruned, "--json", "-", "--quiet")
    check("finetune", done.returncode == 0, done.stderr)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(pruned).graph.initializer}
    zeros = sum((w == 0).sum() for w in weights.values() if w.ndim > 1)
    total = sum(w.size for w in weights.values() if w.ndim > 1)
    check("pruned as asked", abs(zeros / total - 0.6) < 0.01, zeros / total)
    x = test["image"][:1000].astype(np.float32) / 255
    accuracy = np.mean(answers(pruned, x).argmax(1) == test["label"][:1000])
    check("still a classifier", accuracy > 0.9, accuracy)
    again = work / "again.onnx"
    run(*arguments, "-o", again, "--threads", 1, "--checkpoint", work / "state", "--quiet")
    check("same bytes with one thread and checkpoints", again.read_bytes() == pruned.read_bytes())
    done = run("compress", pruned, "-o", small, "--calib", work / "train.npy", "--json", "-")
    check("compress pruned", done.returncode == 0 and json.loads(done.stdout)["ratio"] > 15, done.stderr)
    run("restore", small, "-o", again)
    back = {t.name: numpy_helper.to_array(t) for t in onnx.load(again).graph.initializer}
    check("pruned zeros stay zero", all(np.all(back[k][w == 0] == 0) for k, w in weights.items()))
    np.save(work / "wrong.npy", np.full(256, 12, np.int64))
    refused("labels out of range", work, "finetune", LENET, "--calib", work / "train.npy",
            "--labels", work / "wrong.npy", says=("label",), code=5)
    for option, value in (("--prune", "1.5"), ("--epochs", "0"), ("--optimizer", "newton"),
                          ("--augment", "noise"), ("--rate", "-1")):
        refused(f"finetune {option} {value}", work, "finetune", LENET, "--calib", work / "train.npy",
                option, value, says=(value,), code=1)


def zstd_files(work):
    """Models named .onnx.zst are read and written; damaged ones are refused."""
    packed, small, again = work / "m.onnx.zst", work / "s.onnx.zst", work / "s.onnx"
    run("restore", compressed(work), "-o", packed)
    check("written as zstd", packed.read_bytes()[:4] == b"\x28\xb5\x2f\xfd")
    done = run("compress", packed, "-o", small, "--form", "plain", "--step", "0.05", "--json", "-")
    check("read from zstd", done.returncode == 0, done.stderr)
    report = json.loads(done.stdout)
    check("bytes on disk", report["compressed_bytes"] == small.stat().st_size and
          report["original_bytes"] == packed.stat().st_size, report["ratio"])
    check("plain form is small with zstd", LENET.stat().st_size / small.stat().st_size > 8)
    check("unpacked again", run("restore", small, "-o", again).returncode == 0 and
          onnx.load(again).graph.node[0].op_type == "Conv")
    whole = packed.read_bytes()
    for name, data in (("truncated", whole[:len(whole) // 2]), ("flipped", whole[:99] + b"?" + whole[100:])):
        (work / "bad.onnx.zst").write_bytes(data)
        refused(f"zstd {name}", work, "compress", work / "bad.onnx.zst", says=("bad.onnx.zst",))


def bad_models(work):
    calib = ("--calib", IMAGES)
    refused("missing", work, "compress", work / "none.onnx", *calib, says=("none.onnx",), code=2)
    bad = work / "bad.onnx"
    bad.write_bytes(b"")
    refused("empty", work, "compress", bad, *calib, says=("bad.onnx",))
    bad.write_text("this is not a model\n" * 50)
    refused("text", work, "compress", bad, *calib, says=("bad.onnx",))
    refused("a folder", work, "compress", work, *calib)
    whole = LENET.read_bytes()
    for part in range(1, 50):
        bad.write_bytes(whole[:len(whole) * part // 50])
        refused(f"truncated at {part}/50", work, "compress", bad, *calib)

    def variant(name, change, says, **options):
        model = onnx.load(LENET)
        change(model)
        onnx.save(model, bad)
        refused(name, work, "compress", bad, *calib, says=says, **options)

    def poison(value):
        def change(model):
            for tensor in model.graph.initializer:
                if tensor.name == "2.weight":
                    array = numpy_helper.to_array(tensor).copy()
                    array.flat[7] = value
                    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return change

    variant("NaN weight", poison(np.nan), ("2.weight", "NaN"))
    variant("infinite weight", poison(np.inf), ("2.weight", "infinite"))

    def cycle(model):
        model.graph.node[0].input[0] = model.graph.node[2].output[0]
    variant("cycle", cycle, ("cycle",))

    def external(location):
        def change(model):
            tensor = next(t for t in model.graph.initializer if t.name == "5.weight")
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", "1600000")):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        return change
    variant("external data missing", external("weights.bin"), ("weights.bin",))
    outside = work.parent / "outside.bin"
    outside.write_bytes(bytes(1600000))
    variant("external data outside", external("../outside.bin"), ("outside.bin",))
    variant("external data absolute", external(str(outside)), ("outside.bin",))
    (work / "link.bin").symlink_to(outside)
    variant("external data through a link", external("link.bin"), ("link.bin",))
    (work / "link.bin").unlink()
    outside.unlink()

    refused("already compressed", work, "compress", compressed(work), *calib, says=("already",))
    refused("restore of a stranger", work, "restore", LENET, says=("not written by",))


def compressed(work):
    small = work / "compressed.onnx"
    if not small.exists():
        run("compress", LENET, "-o", small, "--quiet")
    return small


def bad_data(work):
    def case(name, array, says):
        np.save(work / "bad.npy", array)
        refused(name, work, "compress", LENET, "--calib", work / "bad.npy", says=says)
    images = np.load(IMAGES)[:10]
    case("wrong shape", images[:, :, :20], ("image",))
    case("wrong rank", images.reshape(10, 784), ("image",))
    case("no samples", images[:0], ())
    floats = images.astype(np.float32) / 255
    case("NaN sample", np.where(np.arange(10).reshape(10, 1, 1, 1) == 3, np.nan, floats).astype(np.float32),
         ("image", "sample 3", "not finite"))
    case("infinite sample", np.where(np.arange(10).reshape(10, 1, 1, 1) == 3, np.inf, floats).astype(np.float32),
         ("image",))
    case("complex", images.astype(np.complex64), ())
    case("strings", np.array(["a"] * 10), ())
    (work / "bad.npy").write_bytes(IMAGES.read_bytes()[:5000])
    refused("truncated npy", work, "compress", LENET, "--calib", work / "bad.npy", says=("bad.npy",))
    refused("missing data", work, "compress", LENET, "--calib", work / "none.npy", says=("none.npy",), code=2)
    np.save(work / "short.npy", np.zeros(3, np.int64))
    np.save(work / "few.npy", images)
    refused("labels of another number", work, "compress", LENET, "--calib", work / "few.npy",
            "--labels", work / "short.npy", says=("3 labels",))
    refused("drop without labels", work, "compress", LENET, "--calib", work / "few.npy", "--max-drop", 1,
            says=("--labels",))
    np.savez(work / "wrong.npz", nonsense=np.zeros(3, np.float32))
    refused("foreign importance", work, "compress", LENET, "--calib", work / "few.npy",
            "--hessian", work / "wrong.npz", says=("wrong.npz",))
    for option, value in (("--ratio", "x"), ("--ratio", "0.5"), ("--bits", "-1"), ("--method", "magic"),
                          ("--form", "best"), ("--threads", "0"), ("--memory", "lots"), ("--mean", "1,,2"),
                          ("--std", "0"), ("--importance", "gut"), ("--lambda", "-1"), ("--levels", "8"), ("--output", "nobody=logits"), ("--scope", "layer")):
        refused(f"{option} {value}", work, "compress", LENET, "--calib", work / "few.npy", option, value,
                says=(value,), code=1)
    refused("half a centre", work, "compress", LENET, "--calib", work / "few.npy", "--method", "kmeans",
            "--levels", "1.5", says=("1.5",), code=1)
    refused("fisher without labels", work, "compress", LENET, "--calib", work / "few.npy",
            "--importance", "empirical-fisher", says=("label",))
    refused("two goals", work, "compress", LENET, "--ratio", "10", "--bits", "2", says=("one goal",), code=1)
    refused("too little memory", work, "compress", LENET, "--calib", work / "few.npy", "--memory", "20k",
            says=("memory bound",), code=7)
    np.save(work / "eight.npy", np.zeros((2, 8), np.float32))
    greedy = ROOT / "tests" / "fuzz" / "corpus" / "compress"
    refused("rounds without end", work, "compress", greedy / "endless", "--calib", work / "eight.npy",
            says=("y (Loop)", "rounds"), code=4)
    refused("gigabytes from a few bytes", work, "compress", greedy / "greedy-pad", "--calib",
            work / "eight.npy", says=("y (Pad)", "follows from the sizes"), code=7)
    refused("unreachable goal", work, "compress", LENET, "--calib", work / "few.npy", "--ratio", "5000",
            code=6)


def bad_output(work):
    missing = work / "nowhere" / "out.onnx"
    done = run("compress", LENET, "-o", missing)
    check("unwritable folder", done.returncode == 2 and "nowhere" in done.stderr, done.stderr)
    (work / "dir.onnx").mkdir()
    done = run("compress", LENET, "-o", work / "dir.onnx")
    check("output is a folder", done.returncode == 2 and not leftovers(work), done.stderr)

    def small_files():  # every file that the program writes may have 20 kB, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    refused("disk full", work, "compress", LENET, preexec_fn=small_files)
    if pathlib.Path("/dev/full").exists():
        done = run("compress", LENET, "-o", "/dev/full")
        check("output to a device", done.returncode != 0, done.stderr)

    out = work / "interrupted.onnx"
    out.write_bytes(b"kept")
    for delay in (0.05, 0.3, 0.8, 1.5):
        process = subprocess.Popen([PROGRAM, "compress", LENET, "-o", out, "--calib", IMAGES],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        check("interrupted", process.returncode != 0, process.returncode)
        check("interrupted: output as it was", out.read_bytes() == b"kept")
        check("interrupted: no temporary file", not leftovers(work), leftovers(work))


def unsupported_op(work):
    """An op without a derivative makes the tensors behind it fall back, with a note that names it."""
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((64, 32)).astype(np.float32) / 8
    w2 = rng.standard_normal((32, 10)).astype(np.float32) / 6
    for op, runs in (("Floor", True), ("Einstein", False)):
        nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
                 helper.make_node(op, ["a"], ["b"], name="strange", domain="" if runs else "made.up"),
                 helper.make_node("MatMul", ["b", "w2"], ["y"], name="last")]
        graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 64])],
                                  [helper.make_tensor_value_info("y", 1, ["N", 10])],
                                  [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(w2, "w2")])
        model = helper.make_model(graph, ir_version=8, opset_imports=[
            helper.make_opsetid("", 16), helper.make_opsetid("made.up", 1)])
        onnx.save(model, work / "strange.onnx")
        np.save(work / "x.npy", 4 * rng.standard_normal((100, 64)).astype(np.float32))
        done = run("compress", work / "strange.onnx", "-o", work / "strange.small.onnx",
                   "--calib", work / "x.npy", "--json", "-")
        check(f"{op}: compresses", done.returncode == 0, done.stderr)
        check(f"{op}: names node and op", "strange" in done.stderr and op in done.stderr, done.stderr)
        if done.returncode == 0:
            reasons = {t["name"]: t["reason"] for t in json.loads(done.stdout)["tensors"]}
            check(f"{op}: report says so", "size" in reasons["w1"], reasons)
            check(f"{op}: others are measured", not runs or reasons["w2"] == "gauss-newton", reasons)


def wide_range(work):
    """A small tensor whose range no grid can hold stays exact and does not spoil the others."""
    rng = np.random.default_rng(1)
    s = rng.uniform(0.5, 1.5, 64).astype(np.float32)
    s[0] = 3e4
    w1 = (rng.standard_normal((64, 512)) / 8).astype(np.float32)
    w2 = (rng.standard_normal((512, 10)) / 22).astype(np.float32)
    nodes = [helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("MatMul", ["a", "w1"], ["b"]),
             helper.make_node("Relu", ["b"], ["c"]), helper.make_node("MatMul", ["c", "w2"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 64])],
                              [helper.make_tensor_value_info("y", 1, ["N", 10])],
                              [numpy_helper.from_array(a, n) for a, n in ((s, "s"), (w1, "w1"), (w2, "w2"))])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 16)]),
              work / "wide.onnx")
    x = rng.standard_normal((60, 64)).astype(np.float32)
    x[:, 0] /= 3e4
    np.save(work / "x.npy", x)
    done = run("compress", work / "wide.onnx", "-o", work / "wide.small.onnx", "--calib", work / "x.npy",
               "--json", "-")
    check("wide: compresses", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        tensors = {t["name"]: t for t in json.loads(done.stdout)["tensors"]}
        check("wide: stays exact", tensors["s"]["treatment"] == "exact" and "wide" in tensors["s"]["reason"],
              tensors["s"])
        check("wide: others are coded", tensors["w2"]["treatment"] == "coded", tensors["w2"])


def bit_flips(work, seeds):
    """Flipped bits anywhere in a model: an error or a result, never a crash, no temporary file."""
    model = onnx.load(LENET)
    for tensor in model.graph.initializer:  # small, so that the graph's bytes are hit often
        if np.prod(tensor.dims) > 20000:
            array = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    whole = bytearray(compressed(work).read_bytes())
    head = bytearray(model.SerializeToString())
    bad, out = work / "flipped.onnx", work / "flipped.out"
    for seed in range(seeds):
        rng = random.Random(seed)
        source = whole if seed % 2 else head
        data = bytearray(source)
        for _ in range(rng.randint(1, 8)):
            where = rng.randrange(2500) if rng.random() < 0.7 else rng.randrange(len(data))
            if rng.random() < 0.5:
                where = len(data) - 1 - where
            data[where] ^= 1 << rng.randrange(8)
        bad.write_bytes(data)
        arguments = ("restore", bad) if seed % 2 else ("compress", bad, "--quiet", "--step", "0.05")
        done = run(*arguments, "-o", out)
        check(f"flip {seed}", done.returncode in range(0, 10) and "ERROR: " not in done.stderr and
              "runtime error" not in done.stderr, (done.returncode, done.stderr[-1500:]))
        if done.returncode:
            check(f"flip {seed}: no output", not out.exists())
        out.unlink(missing_ok=True)
    check("flips: no temporary file", not leftovers(work), leftovers(work))


def help_texts():
    for command in ("compress", "restore", "inspect", "hessian", "evaluate", "verify",
                    "finetune"):
        done = run(command, "--help")
        check(f"{command} --help", done.returncode == 0 and "Example:" in done.stdout and
              f"onnxpress {command}" in done.stdout, done.stdout + done.stderr)
        done = run(command, "--nonsense")
        check(f"{command} --nonsense", done.returncode == 1 and "--nonsense" in done.stderr, done.stderr)
    check("--version", run("--version").stdout.startswith("onnxpress "))
    check("no command", run().returncode == 1)
    check("unknown command", run("shrink").returncode == 1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder) / "work"
        work.mkdir()
        help_texts()
        good_input(work)
        goals(work)
        finetune(work)
        zstd_files(work)
        bad_models(work)
        bad_data(work)
        bad_output(work)
        unsupported_op(work)
        wide_range(work)
        bit_flips(work, int(os.environ.get("ONNXPRESS_FLIPS", "300")))
    print(f"{count['passed']} passed, {count['failed']} failed")
    sys.exit(count["failed"] > 0)


main()
