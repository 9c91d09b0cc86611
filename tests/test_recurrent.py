# SPDX-License-Identifier: Apache-2.0
"""RNN, LSTM and GRU with attributes and optional inputs drawn at random, against onnxruntime."""
import os
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper

from paths import ROOT, driver
from test_executor import compare

DRAWS = 60
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
ACTIVATIONS = {"RNN": 1, "LSTM": 3, "GRU": 2}
NAMES = ["Relu", "Tanh", "Sigmoid", "LeakyRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign",
         "Softplus", "Affine"]


def draw(rng, kind, folder):
    steps, batch, width, hidden = rng.integers(1, 5, 4)
    gates = GATES[kind]
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    ways = 2 if direction == "bidirectional" else 1
    # onnxruntime takes layout 1 for some of the ops only, and refuses it otherwise.
    attributes = {"direction": direction, "hidden_size": int(hidden)}
    if rng.random() < 0.4:
        attributes["clip"] = float(rng.uniform(0.3, 2))
    if rng.random() < 0.5:
        names = [str(n) for n in rng.choice(NAMES, ACTIVATIONS[kind] * ways)]
        attributes["activations"] = names
        # onnxruntime takes missing ones of these two for 0.
        if rng.random() < 0.5 or {"Affine", "ScaledTanh"} & set(names):
            attributes["activation_alpha"] = rng.uniform(0.1, 1, len(names)).tolist()
            attributes["activation_beta"] = rng.uniform(0.1, 1, len(names)).tolist()
    if kind == "LSTM" and rng.random() < 0.3:
        attributes["input_forget"] = 1
    if kind == "GRU" and rng.random() < 0.5:
        attributes["linear_before_reset"] = 1
    def normal(*shape):
        return rng.normal(scale=0.4, size=shape).astype(np.float32)

    arrays = {"x": normal(steps, batch, width), "w": normal(ways, gates * hidden, width),
              "r": normal(ways, gates * hidden, hidden)}
    optional = {"b": normal(ways, 2 * gates * hidden),
                "l": rng.integers(1, steps + 1, batch).astype(np.int32),
                "h": normal(ways, batch, hidden)}
    if kind == "LSTM":
        optional["c"] = normal(ways, batch, hidden)
        optional["p"] = normal(ways, 3 * hidden)
    names = list(arrays)
    for name, array in optional.items():
        names.append(name if rng.random() < 0.5 else "")
        if names[-1]:
            arrays[name] = array
    outputs = ["y", "y_h"] + (["y_c"] if kind == "LSTM" else [])
    inputs = [helper.make_tensor_value_info(
        name, TensorProto.INT32 if name == "l" else TensorProto.FLOAT, array.shape)
        for name, array in arrays.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    node = helper.make_node(kind, names, outputs, **attributes)
    model = helper.make_model(helper.make_graph([node], "g", inputs, ends), ir_version=8,
                              opset_imports=[helper.make_opsetid("", int(rng.choice([7, 14, 17])))])
    onnx.save(model, f"{folder}/m.onnx")
    return arrays, attributes, names


def main():
    os.chdir(ROOT)
    run_model = str(driver("run_model"))
    with tempfile.TemporaryDirectory() as folder:
        for kind in GATES:
            ran = 0
            for seed in range(DRAWS):
                arrays, *label = draw(np.random.default_rng(seed), kind, folder)
                ran += compare(run_model, (kind, seed, label), f"{folder}/m.onnx", arrays, folder)
            print(f"{kind}: {ran} of {DRAWS} models agree, the others onnxruntime refuses")
            assert ran >= DRAWS * 3 // 4, kind


if __name__ == "__main__":
    main()
