# SPDX-License-Identifier: Apache-2.0
"""Weights that are quantized already (int4, uint4, int8, float8, MatMulNBits) stay as they are when a
model is compressed, and those beside them are coded, with gradients where the graph has them.
"""
import json
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paths import PROGRAM

WIDTH = 64
EXACT = ["w4", "s4", "z4", "u4", "us4", "w8", "s8", "f8", "fs", "nb", "ns"]
CODED = ["conv", "first", "last"]


def packed(values, name, dtype):
    values = values.ravel()
    raw = (values[0::2] & 15 | (values[1::2] & 15) << 4).astype(np.uint8)
    return helper.make_tensor(name, dtype, (WIDTH, WIDTH), raw.tobytes(), raw=True)


def make_model():
    rng = np.random.default_rng(5)

    def real(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    small = 0.3 / WIDTH ** 0.5
    square = (WIDTH, WIDTH)
    tensors = {"conv": real(8, 3, 3, 3, scale=0.3), "first": real(8 * 36, WIDTH, scale=0.06),
               "last": real(WIDTH, 10, scale=0.15),
               "s4": np.full((WIDTH // 16, WIDTH), small, np.float32), "us4": np.float32(small),
               "w8": rng.integers(-128, 128, square).astype(np.int8),
               "s8": rng.uniform(0.001, 0.003, WIDTH).astype(np.float32), "fs": np.float32(0.12),
               "nb": rng.integers(0, 256, (WIDTH, 2, 16)).astype(np.uint8),
               "ns": np.full(2 * WIDTH, small, np.float32)}
    initializers = [numpy_helper.from_array(a, n) for n, a in tensors.items()]
    initializers += [packed(rng.integers(-8, 8, square), "w4", T.INT4),
                     packed(rng.integers(0, 16, square), "u4", T.UINT4),
                     helper.make_tensor("z4", T.UINT4, (), bytes([8]), raw=True),
                     helper.make_tensor("f8", T.FLOAT8E4M3FN, square,
                                        rng.integers(0, 0x48, square).astype(np.uint8).tobytes(),
                                        raw=True)]
    node = helper.make_node
    nodes = [node("Conv", ["x", "conv"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["cr"]),
             node("Flatten", ["cr"], ["cf"]), node("MatMul", ["cf", "first"], ["h0"]),
             node("DequantizeLinear", ["w4", "s4"], ["d4"], axis=0, block_size=16),
             node("MatMul", ["h0", "d4"], ["m1"]), node("Relu", ["m1"], ["h1"]),
             node("DequantizeLinear", ["u4", "us4", "z4"], ["du"]),
             node("MatMul", ["h1", "du"], ["m2"]), node("Tanh", ["m2"], ["h2"]),
             node("DequantizeLinear", ["w8", "s8"], ["d8"], axis=1),
             node("MatMul", ["h2", "d8"], ["m3"]), node("Relu", ["m3"], ["h3"]),
             node("DequantizeLinear", ["f8", "fs"], ["df"]), node("MatMul", ["h3", "df"], ["m4"]),
             node("MatMulNBits", ["m4", "nb", "ns"], ["h4"], domain="com.microsoft", K=WIDTH,
                  N=WIDTH, bits=4, block_size=32),
             node("MatMul", ["h4", "last"], ["y"])]
    graph = helper.make_graph(nodes, "quantized",
                              [helper.make_tensor_value_info("x", T.FLOAT, ["n", 3, 6, 6])],
                              [helper.make_tensor_value_info("y", T.FLOAT, ["n", 10])],
                              initializers)
    return helper.make_model(graph, ir_version=10,
                             opset_imports=[helper.make_opsetid("", 21),
                                            helper.make_opsetid("com.microsoft", 1)])


def answers(path, x):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def main():
    x = np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path, small = f"{folder}/m.onnx", f"{folder}/small.onnx"
        onnx.save(make_model(), path)
        np.save(f"{folder}/x.npy", x)
        done = subprocess.run([PROGRAM, "compress", path, "-o", small, "--calib", f"{folder}/x.npy",
                               "--output", "y=values", "--max-error", "0.001",
                               "--json=-"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        tensors = {t["name"]: t for t in json.loads(done.stdout)["tensors"]}
        before = {t.name: t for t in onnx.load(path).graph.initializer}
        after = {t.name: t for t in onnx.load(small).graph.initializer}
        for name in EXACT:
            assert after[name].SerializeToString() == before[name].SerializeToString(), name
        for name in CODED:
            assert name not in after, name
            assert tensors[name]["bits"] < 8, tensors[name]
            assert "size" not in tensors[name]["reason"], tensors[name]  # gradients came through
        first, second = answers(path, x), answers(small, x)
        error = ((first - second) ** 2).mean() / first.var()
        assert 0 < error < 0.02, error
        print(f"{len(EXACT)} quantized tensors as they were, {len(CODED)} coded at relative error "
              f"{error:.1e}")


if __name__ == "__main__":
    main()
