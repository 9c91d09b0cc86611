#!/usr/bin/env python3
"""AlexNet at its size (Krizhevsky's, as Caffe has it: 60,965,224 parameters), with random weights.

usage: alexnet.py OUT.onnx [IMAGES.npy] [--images N] [--lrn] [--scale F]

Weights are Laplacian with He's variance and pruned by magnitude to the shares that Deep Compression keeps
a layer (11 % of all). For memory and time only: the network has learnt nothing. --lrn puts in the two
LocalResponseNormalizations; --scale F narrows all layers, for a quick look.
"""
import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# name, filters, channels a filter sees, kernel, stride, padding, groups, share kept, then pool and LRN
CONVOLUTIONS = (("conv1", 96, 3, 11, 4, 0, 1, 0.84, True), ("conv2", 256, 48, 5, 1, 2, 2, 0.38, True),
                ("conv3", 384, 256, 3, 1, 1, 1, 0.35, False), ("conv4", 384, 192, 3, 1, 1, 2, 0.37, False),
                ("conv5", 256, 192, 3, 1, 1, 2, 0.37, True))
DENSE = (("fc6", 4096, 9216, 0.09), ("fc7", 4096, 4096, 0.09), ("fc8", 1000, 4096, 0.25))
LOCAL = ("conv1", "conv2")


def pruned(rng, shape, fan_in, kept):
    """Laplacian weights of variance 2 / fan_in, the largest share `kept` of them."""
    weights = rng.laplace(0, np.sqrt(1 / fan_in), shape).astype(np.float32)
    weights[np.abs(weights) < np.quantile(np.abs(weights), 1 - kept)] = 0
    return weights


def build(lrn, scale):
    rng = np.random.default_rng(0)
    narrow = lambda n: max(2, int(n * scale) // 2 * 2)
    nodes, tensors, value = [], [], "image"

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def layer(op, value, name, weights, **attributes):
        tensors.append(numpy_helper.from_array(weights, name + ".weight"))
        bias = rng.normal(0, 0.01, weights.shape[0]).astype(np.float32)
        tensors.append(numpy_helper.from_array(bias, name + ".bias"))
        return add(op, [value, name + ".weight", name + ".bias"], name, **attributes)

    for name, filters, channels, kernel, stride, pad, groups, kept, pooled in CONVOLUTIONS:
        channels = channels if channels == 3 else narrow(channels)
        weights = pruned(rng, (narrow(filters), channels, kernel, kernel), channels * kernel ** 2, kept)
        value = layer("Conv", value, name, weights, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                      pads=[pad] * 4, group=groups)
        value = add("Relu", [value], name + ".relu")
        if lrn and name in LOCAL:
            value = add("LRN", [value], name + ".lrn", size=5, alpha=1e-4, beta=0.75)
        if pooled:
            value = add("MaxPool", [value], name + ".pool", kernel_shape=[3, 3], strides=[2, 2])
    value = add("Flatten", [value], "flat")
    width = 36 * narrow(CONVOLUTIONS[-1][1])
    for name, rows, _, kept in DENSE:
        rows = rows if name == "fc8" else narrow(rows)
        value = layer("Gemm", value, name, pruned(rng, (rows, width), width, kept), transB=1)
        width = rows
        if name != "fc8":
            value = add("Relu", [value], name + ".relu")
    add("Softmax", [value], "prob", axis=1)
    graph = helper.make_graph(
        nodes, "alexnet", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 227, 227])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["N", 1000])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    weights = [numpy_helper.to_array(t) for t in tensors]
    total, kept = sum(w.size for w in weights), sum(np.count_nonzero(w) for w in weights)
    print(f"{total:,} parameters, {100 * kept / total:.1f} % of them not zero")
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--lrn", action="store_true")
    parser.add_argument("--scale", type=float, default=1)
    options = parser.parse_args()
    onnx.save(build(options.lrn, options.scale), options.model)
    if options.data:
        rng = np.random.default_rng(1)
        np.save(options.data, rng.normal(0, 1, (options.images, 3, 227, 227)).astype(np.float32))


main()
