#!/usr/bin/env python3
"""What compress needs of memory for each weight: two networks that differ in their width alone, and the
peaks between them. The bounds are in copies of the weights (4 bytes each)."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from paths import PROGRAM

NARROW, WIDE = 768, 1792 # from a whole block of streams on
WORDS = 4 * (WIDE ** 2 - NARROW ** 2) * 2 # bytes of weights between the two
ADAM = ("--importance", "adam", "--method", "uniform", "--step", "0.02", "--memory", "64M")
LEAST = 1.9 # values and their importances: less, and they have not been there
KMEANS = ("--importance", "adam", "--method", "kmeans", "--step", "16", "--memory", "64M")
ECSQ = ("--importance", "adam", "--method", "ecsq", "--lambda", "1e-6", "--memory", "64M")
# AddressSanitizer keeps a byte for every eight.
MORE = 1.13 if b"__asan_init" in PROGRAM.read_bytes() else 1
# What is measured, options after the data (None: no data), share of weights kept, most copies.
CASES = (("adam, uniform", ADAM, 1, 3.0),
         ("adam, uniform, form function", (*ADAM, "--form", "function"), 1, 3.0),
         ("adam, k-means, pruned", (*KMEANS, "--form", "lookup"), 0.1, 3.1),
         ("adam, ecsq, pruned", (*ECSQ, "--form", "lookup"), 0.1, 3.1),
         ("adam, k-means, all", (*KMEANS, "--form", "lookup"), 1, 5.0),
         ("adam, ecsq, all", (*ECSQ, "--form", "lookup"), 1, 7.0),
         ("no data", None, 1, 3.0))


def network(path, width, kept):
    rng = np.random.default_rng(0)
    shapes = {"a": (32, width), "b": (width, width), "c": (width, width), "d": (width, 10)}
    weights = []
    for name, shape in shapes.items():
        values = rng.laplace(0, np.sqrt(1 / shape[0]), shape) * (rng.random(shape) < kept)
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
    nodes, value = [], "image"
    for name in shapes:
        nodes.append(helper.make_node("MatMul", [value, name], ["m" + name]))
        value = "r" + name
        nodes.append(helper.make_node("Relu", ["m" + name], [value]))
    nodes[-1].output[0] = "out"
    graph = helper.make_graph(nodes, "wide",
                              [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 32])],
                              [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 10])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def peak(model, options, folder):
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"}
    data = () if options is None else ("--calib", folder / "data.npy", *options)
    subprocess.run([PROGRAM, "compress", model, "-o", folder / "small.onnx", "--json", folder / "report",
                    "--quiet", *data], check=True, env=environment, stderr=subprocess.DEVNULL)
    report = json.loads((folder / "report").read_text())
    assert report["coded_weights"] == report["weights"], report
    return report["peak_rss_bytes"]


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.save(folder / "data.npy", np.random.default_rng(1).normal(size=(10, 32)).astype(np.float32))
        for case, options, kept, most in CASES:
            peaks = []
            for width in (NARROW, WIDE):
                network(folder / "model.onnx", width, kept)
                peaks.append(peak(folder / "model.onnx", options, folder))
            copies = (peaks[1] - peaks[0]) / WORDS
            print(f"{case}: {copies:.2f} copies of the weights, {LEAST} to {most}")
            failed |= not LEAST <= copies <= most * MORE
    return failed


if __name__ == "__main__":
    sys.exit(main())
