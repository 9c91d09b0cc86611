# SPDX-License-Identifier: Apache-2.0
"""The executor's outputs against onnxruntime's: the models of testdata/ with batches of 1 and 5, and
single convolutions, pools, products and normalizations with attributes drawn at random.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from paths import ROOT, driver

MODELS = ["lenet5_mnist", "resnet20", "resnet32", "resnet32_bn"]
TOLERANCE = 1e-5  # of the largest output; float32 sums in another order
DRAWS = 60        # a kind of node


def compare(run_model, label, path, inputs, folder):
    """False when onnxruntime refuses the model; then ours is not asked."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        expected = session.run(None, inputs)
    except Exception:  # onnxruntime's exceptions have no common base
        return False
    np.savez(f"{folder}/x.npz", **inputs)
    done = subprocess.run([run_model, path, f"{folder}/x.npz", f"{folder}/y.npz"],
                          capture_output=True, text=True)
    assert done.returncode == 0, (label, done.stderr)
    found = np.load(f"{folder}/y.npz")
    for output, theirs in zip(session.get_outputs(), expected):
        ours = found[output.name]
        assert ours.shape == theirs.shape, (label, ours.shape, theirs.shape)
        error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3)
        assert error <= TOLERANCE, (label, error)
    return True


def real_model(run_model, name, batch, folder):
    path = f"testdata/{name}.onnx"
    given = onnx.load(path).graph.input[0]
    shape = [batch] + [d.dim_value for d in given.type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(batch).standard_normal(shape).astype(np.float32)
    assert compare(run_model, f"{name} batch {batch}", path, {given.name: x}, folder)


def windows(rng, axes):
    """Attributes that convolutions and pools share, and a fitting number of input elements."""
    kernel = rng.integers(1, 4, axes)
    attributes = {"kernel_shape": kernel.tolist(), "strides": rng.integers(1, 4, axes).tolist()}
    attributes["dilations"] = rng.integers(1, 3, axes).tolist()
    auto_pad = rng.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if auto_pad != "NOTSET":
        attributes["auto_pad"] = str(auto_pad)
        # onnxruntime's auto_pad knows no dilations, and where strides are longer than the kernel its
        # ops disagree with each other (the padding would be negative).
        attributes["dilations"] = [1] * axes
        attributes["strides"] = np.minimum(attributes["strides"], kernel).tolist()
    else:
        attributes["pads"] = [int(rng.integers(0, k)) for k in list(kernel) * 2]
    return attributes, rng.integers(6, 12, axes).tolist()


def draw_conv(rng):
    axes = int(rng.integers(1, 4))
    attributes, size = windows(rng, axes)
    group, per_in, per_out = (int(rng.integers(1, 4)) for _ in range(3))
    attributes["group"] = group
    inputs = {"x": (int(rng.integers(1, 4)), group * per_in, *size),
              "w": (group * per_out, per_in, *attributes["kernel_shape"])}
    if rng.random() < 0.5:
        inputs["b"] = (group * per_out,)
    if rng.random() < 0.3:
        del attributes["kernel_shape"]
    return "Conv", inputs, attributes


def draw_pool(kind):
    def draw(rng):
        axes = int(rng.integers(1, 4))
        attributes, size = windows(rng, axes)
        attributes["ceil_mode"] = int(rng.integers(0, 2))
        if kind == "AveragePool":
            attributes["count_include_pad"] = int(rng.integers(0, 2))
        return kind, {"x": (2, 3, *size)}, attributes
    return draw


def draw_global(rng):
    kind = str(rng.choice(["GlobalAveragePool", "GlobalMaxPool"]))
    return kind, {"x": (2, 3, *rng.integers(1, 6, rng.integers(1, 4)).tolist())}, {}


def draw_gemm(rng):
    m, n, k = rng.integers(1, 7, 3).tolist()
    attributes = {"transA": int(rng.integers(0, 2)), "transB": int(rng.integers(0, 2)),
                  "alpha": float(rng.random()), "beta": float(rng.random())}
    inputs = {"a": (k, m) if attributes["transA"] else (m, k),
              "b": (n, k) if attributes["transB"] else (k, n)}
    c = [None, (), (1,), (n,), (1, n), (m, 1), (m, n)][rng.integers(0, 7)]
    if c is not None:
        inputs["c"] = c
    return "Gemm", inputs, attributes


def draw_matmul(rng):
    m, n, k = rng.integers(1, 6, 3).tolist()
    batch = rng.integers(1, 4, rng.integers(0, 3)).tolist()
    shapes = []
    for tail in ((m, k), (k, n)):
        own = [1 if rng.random() < 0.3 else d for d in batch[rng.integers(0, len(batch) + 1):]]
        shapes.append((*own, *tail) if rng.random() < 0.8 else (k,))
    return "MatMul", {"a": shapes[0], "b": shapes[1]}, {}


def draw_normalization(rng):
    channels = int(rng.integers(1, 5))
    inputs = {"x": (2, channels, *rng.integers(1, 5, rng.integers(0, 4)).tolist())}
    inputs |= {name: (channels,) for name in ("scale", "bias", "mean", "var")}
    return "BatchNormalization", inputs, {"epsilon": float(rng.random()) / 100}


def node(run_model, draw, seed, folder):
    rng = np.random.default_rng(seed)
    kind, shapes, attributes = draw(rng)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if "var" in arrays:
        arrays["var"] = np.abs(arrays["var"])
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape)
              for name, a in arrays.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(kind, list(arrays), ["y"], **attributes)], "g",
                              inputs, [output])
    model = helper.make_model(graph, ir_version=10,
                              opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, f"{folder}/m.onnx")
    return compare(run_model, (kind, shapes, attributes), f"{folder}/m.onnx", arrays, folder)


def main():
    os.chdir(ROOT)
    run_model = str(driver("run_model"))
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            for batch in (1, 5):
                real_model(run_model, name, batch, folder)
        draws = {"Conv": draw_conv, "MaxPool": draw_pool("MaxPool"),
                 "AveragePool": draw_pool("AveragePool"), "global pools": draw_global,
                 "Gemm": draw_gemm, "MatMul": draw_matmul,
                 "BatchNormalization": draw_normalization}
        for label, draw in draws.items():
            ran = sum(node(run_model, draw, seed, folder) for seed in range(DRAWS))
            print(f"{label}: {ran} of {DRAWS} models agree, the others onnxruntime refuses")
            assert ran >= DRAWS // 2, label


if __name__ == "__main__":
    main()
