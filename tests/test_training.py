#!/usr/bin/env python3
"""Training, pruning and batch norm from the command line, on real models: what is written is checked
with numpy and onnxruntime against an independent statement of what was asked for."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from paths import PROGRAM, ROOT

LENET, BN = ROOT / "testdata" / "lenet5_mnist.onnx", ROOT / "testdata" / "resnet32_bn.onnx"
CIFAR = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")

count = {"passed": 0, "failed": 0}


def check(name, condition, detail=""):
    count["passed" if condition else "failed"] += 1
    if not condition:
        print(f"FAIL {name}: {detail}")


def run(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    check("no sanitizer report", "ERROR: " not in done.stderr and "runtime error" not in done.stderr,
          done.stderr[-1500:])
    return done


def report(*arguments):
    done = run(*arguments, "--json", "-", "--quiet")
    check(" ".join(map(str, arguments[-4:])), done.returncode == 0, done.stderr)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def refused(name, work, *arguments, says=(), code=1):
    out = work / "refused.onnx"
    done = run(*arguments, "-o", out, "--quiet")
    check(name + ": code", done.returncode == code, (done.returncode, done.stderr))
    lines = done.stderr.splitlines()
    check(name + ": one line", len(lines) == 1 and lines[0].startswith("onnxpress"), done.stderr)
    for word in says:
        check(f"{name}: says {word}", word in done.stderr, done.stderr)
    check(name + ": nothing written", not out.exists())


def weights(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def matrices(path):
    return {k: w for k, w in weights(path).items() if w.ndim > 1}


def restored(small, work):
    run("restore", small, "-o", work / "restored.onnx")
    return work / "restored.onnx"


def answers(path, x, outputs=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(outputs, {session.get_inputs()[0].name: x})


def kl(p, q):
    p, q = (x.astype(np.float64) - x.max(1, keepdims=True) for x in (p, q))
    p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (p, q))
    return (np.exp(p) * (p - q)).sum(1).mean()


def digits(work):
    test = np.load(ROOT / "testdata" / "mnist_test.npz")
    np.save(work / "x.npy", test["image"][:160])
    np.save(work / "y.npy", test["label"][:160].astype(np.int64))
    np.save(work / "other.npy", test["image"][2000:2200])
    np.save(work / "other_y.npy", test["label"][2000:2200].astype(np.int64))
    return "--calib", work / "x.npy", "--labels", work / "y.npy"


def centres(work):
    """compress --finetune: assignments stay, values move and are better, the file holds them."""
    digits(work)
    data = ("--calib", work / "x.npy", "--validate", work / "other.npy")
    plain, tuned = work / "plain.onnx", work / "tuned.onnx"
    step = ("compress", LENET, *data, "--method", "uniform", "--scope", "tensor", "--step", "0.08")
    before = report(*step, "-o", plain)
    after = report(*step, "-o", tuned, "--finetune", 3)
    training = after["training"]
    check("kept", training["kept"] and training["loss"] == "distillation", training)
    check("before is as without it", abs(training["before"]["kl"] - before["kl"]) < 1e-9, training)
    check("after is what was written", training["after"]["kl"] == after["kl"], training)
    check("nearer", after["kl"] < 0.95 * before["kl"], (before["kl"], after["kl"]))
    check("the same size", abs(plain.stat().st_size - tuned.stat().st_size) < 64)
    x = np.load(work / "other.npy").astype(np.float32) / 255
    original = answers(LENET, x)[0]
    for path, said in ((plain, before), (tuned, after)):
        measured = kl(original, answers(path, x)[0])
        check("KL in onnxruntime", abs(measured - said["kl"]) < 1e-3 * said["kl"] + 1e-6,
              (measured, said["kl"]))
    a, b = matrices(restored(plain, work)), matrices(restored(tuned, work))
    for name, w in a.items():
        pairs = np.unique(np.stack([w.ravel(), b[name].ravel()]), axis=1)
        check(f"{name}: assignments stay", pairs.shape[1] == len(np.unique(w)) == len(np.unique(b[name])),
              pairs.shape)
        check(f"{name}: values move", np.mean(w != b[name]) > 0.9, np.mean(w != b[name]))
    hessian = report(*step, "-o", tuned, "--finetune", 1, "--centre-gradient", "hessian")
    mean = report(*step, "-o", tuned, "--finetune", 1)
    check("the two gradients differ", hessian["kl"] != mean["kl"], mean["kl"])
    labelled = report(*step, "-o", tuned, "--finetune", 1, "--train", work / "other.npy",
                      "--train-labels", work / "other_y.npy", "--labels", work / "other_y.npy")
    check("labels", labelled["training"]["loss"] == "cross-entropy" and
          labelled["training"]["samples"] == 200 and 0 < labelled["training"]["last_accuracy"] <= 1,
          labelled["training"])
    worse = report(*step, "-o", tuned, "--finetune", 1, "--rate", 1)
    check("what is worse is left out", not worse["training"]["kept"] and
          any("no better" in w for w in worse["warnings"]) and worse["kl"] == before["kl"] and
          worse["training"]["after"]["kl"] > before["kl"], worse["training"])
    check("the file is then the plain one", tuned.read_bytes() == plain.read_bytes())


def pruned_once(work):
    """compress --prune: exactly the least go, by size or damage; zeros survive everything."""
    digits(work)
    data = ("--calib", work / "x.npy")
    small = work / "small.onnx"
    run("hessian", LENET, "-o", work / "h.npz", *data)
    h, w = np.load(work / "h.npz"), matrices(LENET)
    fixed = ("compress", LENET, "-o", small, *data, "--hessian", work / "h.npz", "--step", "0.02")
    size, damage = {k: np.abs(v) for k, v in w.items()}, {k: h[k] * v * v for k, v in w.items()}
    for by, score, scope, tune in (("size", size, "model", ("--finetune", 1)), ("size", size, "tensor", ()),
                                   ("damage", damage, "model", ())):
        made = report(*fixed, "--prune", "0.7", "--prune-by", by, "--prune-scope", scope, *tune)
        back = matrices(restored(small, work))
        check(f"{by} {scope}: share", abs(made["pruned"] - 0.7) < 1e-3, made["pruned"])
        everything = np.concatenate([s.ravel() for s in score.values()])
        for name in w:
            limit = np.quantile(everything if scope == "model" else score[name], 0.7)
            gone = score[name] < limit * 0.999
            check(f"{by} {scope} {name}: zeros", np.all(back[name][gone] == 0),
                  np.mean(back[name][gone] == 0))
            large = (score[name] > limit * 1.001) & (np.abs(w[name]) > 0.05)
            check(f"{by} {scope} {name}: others", np.mean(back[name][large] != 0) > 0.5,
                  np.mean(back[name][large] != 0))
    goal = ("compress", LENET, "-o", small, *data, "--hessian", work / "h.npz", "--max-kl", "0.02")
    plain, made = report(*goal), report(*goal, "--prune", "auto")
    check("auto is no larger", made["compressed_bytes"] <= plain["compressed_bytes"],
          (made["compressed_bytes"], plain["compressed_bytes"]))
    check("auto meets the goal", made["kl"] <= 0.02 and 0.3 < made["pruned"] < 0.99, made["pruned"])


def pruned_gradually(work):
    """finetune --prune-by damage, --prune auto, zeros of an earlier pruning."""
    data = digits(work)
    tuned, again = work / "tuned.onnx", work / "again.onnx"
    run("hessian", LENET, "-o", work / "h.npz", "--calib", work / "x.npy")
    h, w = np.load(work / "h.npz"), matrices(LENET)
    common = ("finetune", LENET, "-o", tuned, *data, "--hessian", work / "h.npz", "--rate", "1e-20",
              "--epochs", 1)
    for by, score in (("size", {k: np.abs(w[k]) for k in w}),
                      ("damage", {k: h[k] * w[k] * w[k] for k in w})):
        made = report(*common, "--prune", "0.6", "--prune-by", by)
        zeros = {k: v == 0 for k, v in matrices(tuned).items()}
        limit = np.quantile(np.concatenate([s.ravel() for s in score.values()]), 0.6)
        check(f"by {by}", all(np.array_equal(zeros[k], s <= limit) for k, s in score.items()),
              made["pruned"])
        order = np.argsort(np.concatenate([s.ravel() for s in score.values()]), kind="stable")
        damage = np.cumsum(np.concatenate([(h[k] * w[k] * w[k]).ravel() for k in w])[order].astype(float))
        expected = np.searchsorted(damage, 0.05 * damage[-1]) / len(damage)
        made = report(*common, "--prune", "auto", "--prune-by", by)
        check(f"auto by {by}", abs(made["pruned"] - expected) < 1e-3, (made["pruned"], expected))
    zeros = {k: v == 0 for k, v in matrices(tuned).items()}
    report("finetune", tuned, "-o", again, *data, "--epochs", 1)
    check("zeros stay without --prune", all(np.array_equal(zeros[k], v == 0)
                                            for k, v in matrices(again).items()))


def schedules(work):
    """Rates decide the bytes: a step schedule before its first step is the constant one."""
    data = digits(work)
    out = work / "out.onnx"

    def trained(*options):
        report("finetune", LENET, "-o", out, *data, "--epochs", 2, "--rate", "1e-4", *options)
        return out.read_bytes()

    constant = trained("--schedule", "constant")
    cosine = trained("--schedule", "cosine")
    check("cosine is another", cosine != constant)
    check("cosine is the default", trained() == cosine)
    check("late step", trained("--schedule", "step", "--step-epochs", 2, "--factor", "0.1") == constant)
    check("step", trained("--schedule", "step", "--step-epochs", 1, "--factor", "0.1") != constant)
    check("warm-up", trained("--schedule", "constant", "--warmup", 4) != constant)
    trained("--schedule", "constant", "--decay", 100)
    norm = {k: np.abs(v).mean() for k, v in matrices(out).items()}
    check("decay shrinks", all(norm[k] < 0.97 * np.abs(v).mean() for k, v in matrices(LENET).items()), norm)


def teacher(work):
    """--teacher: with labels half of the target is theirs, half the teacher's answer; else all is."""
    data = digits(work)
    out, other = work / "out.onnx", work / "other.onnx"
    report("finetune", LENET, "-o", other, *data, "--epochs", 1, "--rate", "1e-3")
    x, y = np.load(work / "x.npy").astype(np.float32) / 255, np.load(work / "y.npy")

    def logs(path):
        logits = answers(path, x)[0].astype(np.float64)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    model, taught = logs(LENET), logs(other)
    target = 0.5 * np.eye(10)[y] + 0.5 * np.exp(taught)
    still = ("finetune", LENET, "-o", out, "--teacher", other, "--epochs", 1, "--rate", "1e-30")
    for what, options, expected in (
            ("labels and teacher", data, -(target * model).sum(1).mean()),
            ("teacher", data[:2], (np.exp(taught) * (taught - model)).sum(1).mean())):
        loss = report(*still, *options)["training"]["last_loss"]
        check(what, abs(loss - expected) < 1e-4 * expected, (loss, expected))
    made = report("finetune", LENET, "-o", out, "--teacher", other, *data[:2], "--epochs", 6, "--rate", "1e-4")
    check("it learns from the teacher", made["training"]["last_loss"] < 0.9 * made["training"]["first_loss"],
          made["training"])
    refused("a teacher of other inputs", work, "finetune", LENET, *data, "--teacher", BN, code=5,
            says=("--teacher", "inputs and outputs"))
    refused("no teacher", work, "finetune", LENET, *data, "--teacher", work / "none.onnx", code=2)


def progress(work):
    """Off a terminal a line an epoch with loss, accuracy, kept share and time; quiet when told."""
    data = digits(work)
    arguments = ("finetune", LENET, "-o", work / "out.onnx", *data, "--epochs", 2, "--prune", "0.5")
    lines = run(*arguments).stderr.splitlines()
    check("a line an epoch", len(lines) == 2, lines)
    for number, line in enumerate(lines, 1):
        check("a line", all(word in line for word in
                            (f"epoch {number}/2: loss ", "accuracy ", "% kept", "s left")), line)
    check("the last is over", lines and "50.0 % kept, 0 s left" in lines[-1], lines)
    check("quiet", run(*arguments, "--quiet").stderr == "")


def with_norm_inputs(path, work):
    """The model with every normalization's input as an output, and what each has stored."""
    model = onnx.load(path)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    for node in norms:
        model.graph.output.append(helper.make_tensor_value_info(node.input[0], 1, None))
    onnx.save(model, work / "watched.onnx")
    return work / "watched.onnx", [(n.input[0], n.input[3], stored[n.input[3]], stored[n.input[4]])
                                   for n in norms]


def norms_agree(name, path, x, work):
    """Every stored mean and variance is that of what the norm sees in onnxruntime."""
    watched, norms = with_norm_inputs(path, work)
    seen = answers(watched, x, [value for value, *_ in norms])
    worst = 0
    for (_, _, mean, variance), value in zip(norms, seen):
        value = value.astype(np.float64)
        worst = max(worst, np.max(np.abs(value.mean((0, 2, 3)) - mean) / np.sqrt(variance + 1e-5)),
                    np.max(np.abs(value.var((0, 2, 3)) - variance) / (variance + 1e-5)))
    check(f"{name}: {len(norms)} norms are as measured", len(norms) == 31 and worst < 1e-4, worst)
    return {k: v for _, k, v, _ in norms}


def batch_norm(work):
    """--batch-norm reestimate, layer after layer, against onnxruntime; fixed leaves them."""
    images = np.load(ROOT / "testdata" / "cifar10_calibration.npy")[:24]
    np.save(work / "c.npy", images)
    mean, std = (np.array([float(v) for v in text.split(",")], np.float32).reshape(1, 3, 1, 1)
                 for text in CIFAR[1::2])
    x = (images.astype(np.float32) / 255 - mean) / std
    tuned, small = work / "tuned.onnx", work / "small.onnx"
    training = ("finetune", BN, "-o", tuned, "--calib", work / "c.npy", *CIFAR, "--epochs", 1,
                "--batch", 12, "--rate", "1e-3")
    made = report(*training, "--batch-norm", "reestimate")
    check("31 norms", made["norms"] == 31, made["norms"])
    new = norms_agree("finetune", tuned, x, work)
    report(*training)
    old = {k: v for _, k, v, _ in with_norm_inputs(tuned, work)[1]}
    original = {k: v for _, k, v, _ in with_norm_inputs(BN, work)[1]}
    check("fixed stay", all(np.array_equal(old[k], v) for k, v in original.items()))
    check("reestimated move", all(not np.array_equal(new[k], v) for k, v in original.items()))
    # Trained by the minibatch's own, the model's play no part; 24 samples are one block, whose
    # statistics are then the model's.
    spoilt = onnx.load(BN)
    for tensor in spoilt.graph.initializer:
        if "running_" in tensor.name:
            value = numpy_helper.to_array(tensor) * np.float32(1.5) + np.float32(0.1)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(spoilt, work / "spoilt.onnx")
    np.save(work / "labels.npy", np.arange(24) % 10)
    training += ("--labels", work / "labels.npy")
    by_batch = [report("finetune", model, *training[2:], "--batch-norm", "train")["training"]["last_loss"]
                for model in (work / "spoilt.onnx", BN)]
    norms_agree("trained by batch", tuned, x, work)
    by_model = report("finetune", work / "spoilt.onnx", *training[2:])["training"]["last_loss"]
    check("by batch", abs(by_batch[0] - by_batch[1]) < 1e-2 * by_batch[1] < abs(by_model - by_batch[1]),
          (by_batch, by_model))
    # So coarse a grid that statistics must help; they are not coded.
    made = report("compress", BN, "-o", small, "--calib", work / "c.npy", "--validate", work / "c.npy",
                  *CIFAR, "--importance", "activation", "--method", "uniform", "--step", "0.12",
                  "--scope", "model", "--batch-norm", "reestimate")
    check("compress: kept", made["norms"] == 31 and made["form"] == "function", made["norms"])
    check("compress: not coded", all("anew" in t["reason"] for t in made["tensors"]
                                     if "running_" in t["name"]))
    norms_agree("compress", restored(small, work), x, work)
    refused("no samples", work, "compress", BN, "--batch-norm", "reestimate", says=("--calib",))


def bad_input(work):
    data = digits(work)
    tune = ("compress", LENET, *data, "--finetune", "1", "--step", "0.05")
    np.save(work / "few_y.npy", np.zeros(159, np.int64))
    wrong = np.zeros(160, np.int64)
    wrong[77] = 10
    np.save(work / "wrong_y.npy", wrong)
    for labels, says in (("few_y.npy", "159"), ("wrong_y.npy", "77")):
        refused(f"finetune {labels}", work, "finetune", LENET, *data[:3], work / labels, code=5, says=(says,))
        refused(f"compress {labels}", work, *tune, "--train", work / "x.npy", "--train-labels",
                work / labels, code=5, says=(says,))
    for command, options in (
            ("finetune", ("--prune 1 --prune 0 --prune -0.1 --prune half --prune-until 2 --factor 0 "
                          "--factor 1.5 --schedule linear --prune-by luck --prune-scope layer "
                          "--batch-norm maybe --rate nan --decay -1 --warmup 1.5 --epochs 1e9 --batch 0")),
            ("compress", ("--finetune 0 --finetune many --prune 1.01 --prune-by luck "
                          "--centre-gradient median --lambda -1 --lambda x"))):
        words = options.split()
        for option, value in zip(words[::2], words[1::2]):
            refused(f"{command} {option} {value}", work, command, LENET, *data, option, value, says=(value,))
    refused("k out of range", work, "compress", LENET, *data, "--method", "kmeans", "--step", "1", says=("1",))
    for alone, says in ((("--rate", "0.1"), "--finetune"), (("--prune-by", "size"), "--prune FRACTION"),
                        (("--train", work / "x.npy"), "--finetune"), (("--factor", "0.5"), "--schedule step")):
        refused(f"{alone[0]} alone", work, "compress", LENET, *data, *alone, says=(says,))
    refused("finetune without samples", work, "compress", LENET, "--finetune", 1, says=("--calib",))
    refused("auto without a goal on answers", work, "compress", LENET, *data, "--prune", "auto",
            "--ratio", "20", says=("--prune auto",))


def divergence(work):
    """A loss that is not finite: step and tensor are named, the last good checkpoint is kept."""
    data, state = digits(work), work / "state"
    arguments = ("finetune", LENET, *data, "--epochs", 5, "--batch", 40, "--optimizer", "sgd",
                 "--schedule", "constant", "--rate", "1e-3", "--decay", "40000", "--checkpoint", state)
    refused("divergence", work, *arguments, code=5, says=("step", "epoch", "learning rate", str(state), ".weight"))
    check("a state is kept", state.exists())
    kept = state.read_bytes() if state.exists() else b""
    first = run(*arguments, "-o", work / "out.onnx", "--quiet").stderr
    check("it fails where it failed", "step" in first and state.read_bytes() == kept, first)


def interruption(work):
    """Killed in the middle and resumed: the bytes of a run that was never interrupted."""
    data, state, out, whole = digits(work), work / "state", work / "out.onnx", work / "whole.onnx"
    arguments = ("finetune", LENET, *data, "--epochs", 6, "--batch", 20, "--rate", "1e-4", "--prune", "0.8",
                 "--prune-by", "damage", "--augment", "shift", "--quiet")
    run(*arguments, "-o", whole)
    process = subprocess.Popen([PROGRAM, *map(str, arguments), "-o", str(out), "--checkpoint", str(state)])
    deadline = time.time() + 300
    while not state.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check("killed after a checkpoint", state.exists() and not out.exists(), (state.exists(), out.exists()))
    kept = state.read_bytes()
    refused("other settings", work, *arguments[:-1], "--decay", "1", "--checkpoint", state, code=1,
            says=("other settings",))
    refused("another model", work, "finetune", whole, *arguments[2:-1], "--checkpoint", state, code=5,
            says=("another model",))
    check("refusals leave it", state.read_bytes() == kept)
    run(*arguments, "-o", out, "--checkpoint", state)
    check("resumed to the same bytes", out.exists() and out.read_bytes() == whole.read_bytes())


def main():
    tests = (centres, pruned_once, pruned_gradually, schedules, teacher, progress, batch_norm, bad_input, divergence,
             interruption)
    chosen = sys.argv[1:]
    for test in tests:
        if chosen and test.__name__ not in chosen:
            continue
        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            test(pathlib.Path(folder))
        if os.environ.get("ONNXPRESS_VERBOSE"):
            print(f"{test.__name__}: {time.time() - started:.1f} s")
    print(f"{count['passed']} passed, {count['failed']} failed")
    sys.exit(count["failed"] > 0)


main()
