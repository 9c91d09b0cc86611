#!/usr/bin/env python3
"""Models with external data: goals on size count what stays outside and not what is coded; one that is
larger than memory is to hold (--memory, without data) is streamed: a grid as for any other, answers as
before, no file left behind, and memory that does not grow with the weights."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from paths import PROGRAM

RNG = np.random.default_rng(0)


def network(path, width, layers=2, odd=None, bias=True):
    """MatMuls of width x width, all tensors in PATH.data; odd: {name: array} instead of random ones."""
    nodes, value, tensors = [], "x", []
    for k in range(layers):
        weights = {f"w{k}": RNG.laplace(0, np.sqrt(0.5 / width) * (k + 1), (width, width))}
        if bias:
            weights[f"b{k}"] = RNG.normal(0, 0.1, width)
        for name, array in weights.items():
            array = (odd or {}).get(name, array)
            tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
        nodes.append(helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"]))
        value = f"m{k}"
        if bias:
            nodes.append(helper.make_node("Add", [value, f"b{k}"], [f"y{k}"]))
            value = f"y{k}"
    graph = helper.make_graph(nodes, "external",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
                              [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", width])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=0)


def run(*arguments):
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"}
    return subprocess.run([PROGRAM, *arguments, "--quiet"], env=environment, capture_output=True, text=True)


def compress(model, out, *options):
    report = out.with_suffix(".json")
    done = run("compress", model, "-o", out, "--json", report, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())


def answers(path, x):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def weights(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def check_ratio(folder):
    network(folder / "m.onnx", 128)
    for form in ("function", "lookup"):
        goal = 8 if form == "function" else 3
        report = compress(folder / "m.onnx", folder / "r.onnx", "--form", form, "--ratio", str(goal))
        size = (folder / "r.onnx").stat().st_size
        before = sum((folder / name).stat().st_size for name in ("m.onnx", "m.onnx.data"))
        assert report["compressed_bytes"] == size and before / size >= goal, (before, size)


def check_streamed(folder):
    """Beside the same model compressed in memory."""
    network(folder / "m.onnx", 192)
    x = RNG.normal(size=(5, 192)).astype(np.float32)
    before = answers(folder / "m.onnx", x)
    for sidecar in ("never", "always"):
        streamed = compress(folder / "m.onnx", folder / "s.onnx", "--memory", "64K", "--sidecar", sidecar)
        held = compress(folder / "m.onnx", folder / "h.onnx", "--form", "lookup", "--sidecar", sidecar)
        assert streamed["paper_ratio"] is None and held["paper_ratio"] > 1 # only one has all symbols at once
        for key in ("method", "scope", "form", "coded_weights"):
            assert streamed[key] == held[key], (key, streamed[key], held[key])
        assert streamed["coded_weights"] == 2 * 192 * 193
        assert abs(streamed["compressed_bytes"] / held["compressed_bytes"] - 1) < 0.02
        for a, b in zip(streamed["tensors"], held["tensors"]):
            assert abs(a["bits"] - b["bits"]) < 0.05 and abs(a["distortion"] / b["distortion"] - 1) < 0.05, (a, b)
        error = np.mean((answers(folder / "s.onnx", x) - before) ** 2) / np.var(before)
        assert 1e-5 < error < 0.01, error
        assert run("restore", folder / "s.onnx", "-o", folder / "back.onnx").returncode == 0
        assert np.allclose(answers(folder / "back.onnx", x), answers(folder / "s.onnx", x), atol=1e-5)
        old, new = weights(folder / "m.onnx"), weights(folder / "back.onnx")
        for name, w in old.items():
            assert 0 < np.abs(new[name] - w).max() <= 0.1001 * np.sqrt(np.mean(w ** 2)), name
    assert not list(folder.glob("*.index")) and not list(folder.glob(".*")), list(folder.iterdir())
    # Twice the step: half the levels.
    step = [compress(folder / "m.onnx", folder / "s.onnx", "--memory", "64K", "--step", s) for s in ("0.004", "0.008")]
    assert 1.8 < step[0]["levels"] / step[1]["levels"] < 2.2, [s["levels"] for s in step]


def check_odd(folder):
    """A tensor that no grid can hold stays as it is; a narrow step needs two bytes an index; zeros stay
    zeros; NaN is refused."""
    wide = RNG.normal(size=(96, 96))
    wide[3, 5] = 1e7
    pruned = np.where(RNG.random((96, 96)) < 0.9, 0, RNG.normal(size=(96, 96)))
    network(folder / "m.onnx", 96, 3, {"w0": wide, "w1": pruned, "b1": np.zeros(96)})
    report = compress(folder / "m.onnx", folder / "s.onnx", "--memory", "64K", "--step", "0.03")
    reason = {t["name"]: t["reason"] for t in report["tensors"] if t["treatment"] == "exact"}
    assert list(reason) == ["w0"] and "too wide" in reason["w0"], reason
    assert report["levels"] > 256
    assert run("restore", folder / "s.onnx", "-o", folder / "back.onnx").returncode == 0
    old, new = weights(folder / "m.onnx"), weights(folder / "back.onnx")
    assert np.array_equal(old["w0"], new["w0"]) and not new["b1"].any()
    assert np.array_equal(old["w1"] == 0, new["w1"] == 0)

    wide[3, 5] = np.nan
    network(folder / "n.onnx", 96, 3, {"w1": wide})
    done = run("compress", folder / "n.onnx", "-o", folder / "none.onnx", "--memory", "64K")
    assert done.returncode == 5 and "w1" in done.stderr, (done.returncode, done.stderr)
    os.truncate(folder / "m.onnx.data", 1000)
    done = run("compress", folder / "m.onnx", "-o", folder / "none.onnx", "--memory", "64K")
    assert done.returncode == 3 and "complete" in done.stderr, (done.returncode, done.stderr)
    assert not list(folder.glob("none*")) and not list(folder.glob(".*"))


def check_memory(folder):
    """Four times the weights take no more memory; in memory they do."""
    peaks = {}
    for options in (("--memory", "64K"), ("--form", "lookup")):
        for layers in (2, 8):
            network(folder / "m.onnx", 1024, layers, bias=False)
            report = compress(folder / "m.onnx", folder / "s.onnx", *options)
            assert report["coded_weights"] == layers * 1024 ** 2
            peaks[options[0], layers] = report["peak_rss_bytes"]
    copies = {name: (peaks[name, 8] - peaks[name, 2]) / (6 * 4 * 1024 ** 2) for name in ("--memory", "--form")}
    print(f"{copies['--memory']:.2f} copies of the weights streamed, {copies['--form']:.2f} else")
    assert copies["--memory"] < 0.2 and copies["--form"] > 1.9, copies


def main():
    with tempfile.TemporaryDirectory() as name:
        for check in (check_ratio, check_streamed, check_odd, check_memory):
            folder = pathlib.Path(name, check.__name__)
            folder.mkdir()
            check(folder)
            print(f"{check.__name__} ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
