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

NARROW, WIDE = 512, 2560
WORDS = 4 * (WIDE ** 2 - NARROW ** 2) * 2 # bytes of weights between the two
ADAM = ("--importance", "adam", "--method", "uniform", "--step", "0.02", "--memory", "64M")
CASES = (("adam, uniform", ADAM, 3.0),
         ("adam, uniform, form function", (*ADAM, "--form", "function"), 3.0),
         ("no data", None, 3.0))


def network(path, width):
    rng = np.random.default_rng(0)
    shapes = {"a": (32, width), "b": (width, width), "c": (width, width), "d": (width, 10)}
    weights = [numpy_helper.from_array(
        rng.laplace(0, np.sqrt(1 / shape[0]), shape).astype(np.float32), name)
        for name, shape in shapes.items()]
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
    return json.loads((folder / "report").read_text())["peak_rss_bytes"]


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        network(folder / "narrow.onnx", NARROW)
        network(folder / "wide.onnx", WIDE)
        np.save(folder / "data.npy", np.random.default_rng(1).normal(size=(10, 32)).astype(np.float32))
        for case, options, most in CASES:
            copies = (peak(folder / "wide.onnx", options, folder) -
                      peak(folder / "narrow.onnx", options, folder)) / WORDS
            print(f"{case}: {copies:.2f} copies of the weights, at most {most}")
            failed |= copies > most
    return failed


if __name__ == "__main__":
    sys.exit(main())
