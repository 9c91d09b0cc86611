# SPDX-License-Identifier: Apache-2.0
"""Ops with many attributes against onnxruntime: one-node models with attributes, shapes and opsets
drawn at random.

usage: test_executor_ops.py [OP...]   (only these)
"""
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from paths import driver

TOLERANCE = 2e-5  # of the largest output; float32 sums in another order
DRAWS = 60        # an op
TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32,
         "bool": TensorProto.BOOL}


class Node:
    """What a draw gives: a node, its inputs by name (None: omitted), which of them are constants."""

    def __init__(self, kind, inputs, attributes=None, outputs=1, opset=21, domain="", fixed=()):
        self.kind, self.inputs, self.attributes = kind, inputs, attributes or {}
        self.outputs, self.opset, self.domain, self.fixed = outputs, opset, domain, fixed

    def model(self):
        names = [name if array is not None else "" for name, array in self.inputs.items()]
        outputs = [f"y{k}" for k in range(self.outputs)] if isinstance(self.outputs, int) \
            else self.outputs
        node = helper.make_node(self.kind, names, outputs, domain=self.domain, **self.attributes)
        given = {n: a for n, a in self.inputs.items() if a is not None}
        graph = helper.make_graph(
            [node], "g",
            [helper.make_tensor_value_info(n, TYPES[str(a.dtype)], a.shape)
             for n, a in given.items() if n not in self.fixed],
            [onnx.ValueInfoProto(name=n) for n in outputs if n],
            [numpy_helper.from_array(a, n) for n, a in given.items() if n in self.fixed])
        imports = [helper.make_opsetid("", self.opset)]
        if self.domain:
            imports.append(helper.make_opsetid(self.domain, 1))
        return helper.make_model(graph, ir_version=10, opset_imports=imports)

    def __repr__(self):
        shapes = {n: None if a is None else a if a.ndim == 1 and a.size < 9 else a.shape
                  for n, a in self.inputs.items()}
        return f"{self.kind} {self.opset} {shapes} {self.attributes}"


def agrees(run_model, node, folder):
    """False when onnxruntime refuses the node; a refusal of ours is a failure."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = node.model()
    fed = {n: a for n, a in node.inputs.items() if a is not None and n not in node.fixed}
    try:
        session = ort.InferenceSession(model.SerializeToString(), options,
                                       providers=["CPUExecutionProvider"])
        expected = session.run(None, fed)
    except Exception:  # onnxruntime's exceptions have no common base
        return False
    onnx.save(model, f"{folder}/m.onnx")
    np.savez(f"{folder}/x.npz", **fed)
    done = subprocess.run([run_model, f"{folder}/m.onnx", f"{folder}/x.npz", f"{folder}/y.npz"],
                          capture_output=True, text=True)
    assert done.returncode == 0, (node, done.stderr)
    found = np.load(f"{folder}/y.npz")
    for output, theirs in zip(session.get_outputs(), expected):
        ours = found[output.name]
        assert ours.shape == theirs.shape, (node, output.name, ours.shape, theirs.shape)
        scale = max(np.abs(theirs).max(initial=0), 1e-6)
        distance = np.abs(ours.astype(np.float64) - theirs)
        if theirs.dtype.itemsize == 1:  # where onnxruntime has a table or rounds in between
            assert np.mean(distance > 0) < 0.05, (node, ours, theirs)
            distance = np.maximum(distance - 1, 0)
        error = distance.max(initial=0) / scale
        assert error <= TOLERANCE, (node, output.name, error, ours, theirs)
    return True


def real(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def pick(rng, *choices):
    return choices[rng.integers(0, len(choices))]


def resize(rng):
    opset = int(pick(rng, 10, 11, 13, 18, 19))
    axes = int(pick(rng, 2, 2, 2, 1, 3))
    x = real(rng, 2, 3, *rng.integers(2, 7, axes).tolist())
    scales = np.array([1, 1] + [pick(rng, 0.5, 0.6, 2, 1.5, 1.0, 2.7, 0.37)
                                for _ in range(axes)], np.float32)
    mode = str(pick(rng, "nearest", "linear", "cubic"))
    if opset == 10:
        if mode == "cubic":
            mode = "nearest"
        return Node("Resize", {"x": x, "scales": scales}, {"mode": mode}, opset=10)
    how = str(pick(rng, "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                   "tf_crop_and_resize", *(["half_pixel_symmetric"] if opset >= 19 else [])))
    attributes = {"mode": mode, "coordinate_transformation_mode": how}
    inputs = {"x": x, "roi": None, "scales": scales}
    if mode == "nearest":
        attributes["nearest_mode"] = str(pick(rng, "floor", "ceil", "round_prefer_floor",
                                              "round_prefer_ceil"))
    elif mode == "cubic":
        attributes |= {"cubic_coeff_a": float(pick(rng, -0.5, -0.75)),
                       "exclude_outside": int(rng.integers(0, 2))}
    if how == "tf_crop_and_resize":
        rank = 2 + axes
        roi = np.array([0, 0] + [0.0] * axes + [1, 1] + [1.0] * axes, np.float32)
        for k in range(2, rank):
            if scales[k] != 1:
                roi[k], roi[rank + k] = rng.uniform(-0.2, 0.4), rng.uniform(0.6, 1.2)
        inputs["roi"] = roi
        attributes["extrapolation_value"] = 1.5
    elif opset >= 18 and mode != "nearest" and rng.random() < 0.6:
        attributes["antialias"] = 1
    if rng.random() < 0.5 and how != "half_pixel_symmetric":
        sizes = np.floor(np.array(x.shape) * scales).astype(np.int64)
        inputs |= {"scales": None, "sizes": np.maximum(sizes, 1)}
        if opset >= 18 and how != "tf_crop_and_resize" and rng.random() < 0.5:
            attributes["axes"] = list(range(2, 2 + axes))
            attributes["keep_aspect_ratio_policy"] = str(pick(rng, "not_larger", "not_smaller"))
            inputs["sizes"] = inputs["sizes"][2:]
    return Node("Resize", inputs, attributes, opset=opset)


def upsample(rng):
    x = real(rng, 2, 3, *rng.integers(2, 6, 2).tolist())
    scales = np.array([1, 1, pick(rng, 1, 2, 1.5, 3.3), pick(rng, 1, 2, 1.5)], np.float32)
    mode = str(pick(rng, "nearest", "linear"))
    if rng.random() < 0.5:
        return Node("Upsample", {"x": x}, {"mode": mode, "scales": scales.tolist()}, opset=7)
    return Node("Upsample", {"x": x, "scales": scales}, {"mode": mode}, opset=9)


def layer_norm(rng):
    shape = rng.integers(1, 6, rng.integers(1, 5)).tolist()
    axis = int(rng.integers(0, len(shape)))
    inputs = {"x": real(rng, *shape), "scale": real(rng, *shape[axis:]),
              "bias": pick(rng, None, real(rng, *shape[axis:]))}
    return Node("LayerNormalization", inputs, {"axis": axis - pick(rng, 0, len(shape)),
                                               "epsilon": float(pick(rng, 1e-5, 1e-2))},
                outputs=int(pick(rng, 1, 3)), opset=int(pick(rng, 17, 21)))


def instance_norm(rng):
    c = int(rng.integers(1, 5))
    inputs = {"x": real(rng, 2, c, *rng.integers(1, 5, rng.integers(1, 4)).tolist()),
              "scale": real(rng, c), "bias": real(rng, c)}
    return Node("InstanceNormalization", inputs, {"epsilon": 1e-3}, opset=int(pick(rng, 7, 20)))


def group_norm(rng):
    groups, each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    c = groups * each
    inputs = {"x": real(rng, 2, c, *rng.integers(1, 5, 2).tolist()), "scale": real(rng, c),
              "bias": real(rng, c)}
    return Node("GroupNormalization", inputs, {"num_groups": groups}, opset=21)


def conv_transpose(rng):
    axes = int(rng.integers(1, 4))
    kernel = rng.integers(1, 4, axes)
    strides, group = rng.integers(1, 4, axes), int(rng.integers(1, 3))
    each_in, each_out = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    size = rng.integers(1, 6, axes)
    dilations = rng.integers(1, 3, axes)
    attributes = {"strides": strides.tolist(), "group": group, "dilations": dilations.tolist()}
    padding = np.array([rng.integers(0, max(s, d)) for s, d in zip(strides, dilations)])
    if rng.random() < 0.4:
        attributes["output_padding"] = padding.tolist()
    how = pick(rng, "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "shape", "shape same")
    if how == "pads":
        attributes["pads"] = [int(rng.integers(0, k)) for k in list(kernel) * 2]
    elif "shape" not in how:
        attributes["auto_pad"] = how
    else:
        full = (size - 1) * strides + (kernel - 1) * dilations + 1
        attributes["output_shape"] = [int(max(1, f - rng.integers(0, 3))) for f in full]
        if "same" in how:
            attributes["auto_pad"] = str(pick(rng, "SAME_UPPER", "SAME_LOWER"))
    inputs = {"x": real(rng, 2, group * each_in, *size.tolist()),
              "w": real(rng, group * each_in, each_out, *kernel.tolist()),
              "b": pick(rng, None, real(rng, group * each_out))}
    return Node("ConvTranspose", inputs, attributes, opset=int(pick(rng, 7, 11, 21)))


def blocks(rng):
    b, h, w, c = (int(rng.integers(1, 4)) for _ in range(4))
    if rng.random() < 0.5:
        return Node("SpaceToDepth", {"x": real(rng, 2, c, h * b, w * b)}, {"blocksize": b})
    return Node("DepthToSpace", {"x": real(rng, 2, c * b * b, h, w)},
                {"blocksize": b, "mode": str(pick(rng, "DCR", "CRD"))}, opset=int(pick(rng, 11, 13)))


def microsoft(kind, inputs, attributes=None, outputs=1):
    return Node(kind, inputs, attributes, outputs, domain="com.microsoft")


def gelus(rng):
    b, h, x = int(rng.integers(1, 5)), int(rng.integers(1, 9)), None
    x = real(rng, 2, b, h)
    kind = str(pick(rng, "Gelu", "BiasGelu", "FastGelu", "QuickGelu"))
    inputs = {"x": x}
    if kind == "BiasGelu" or kind == "FastGelu" and rng.random() < 0.5:
        inputs["b"] = real(rng, h)
    return microsoft(kind, inputs, {"alpha": 1.3} if kind == "QuickGelu" else None)


def skip_norm(rng):
    b, s, h = (int(rng.integers(1, 6)) for _ in range(3))
    simple = rng.random() < 0.5
    inputs = {"x": real(rng, b, s, h), "skip": pick(rng, real(rng, b, s, h), real(rng, 1, s, h),
                                                    real(rng, s, h)), "scale": real(rng, h)}
    if not simple:
        inputs["shift"] = pick(rng, None, real(rng, h))
    inputs["bias"] = pick(rng, None, real(rng, h))
    return microsoft("SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization",
                     inputs, {"epsilon": 1e-5}, ["y", "", "", pick(rng, "", "sum")])


def embed_norm(rng):
    b, s, h = (int(rng.integers(1, 6)) for _ in range(3))

    def ids(n):
        return rng.integers(0, n, (b, s)).astype(np.int32)
    segments = rng.random() < 0.5
    inputs = {"ids": ids(7), "segments": ids(2) if segments else None, "word": real(rng, 7, h),
              "position": real(rng, 6, h), "segment": real(rng, 2, h) if segments else None,
              "scale": real(rng, h), "shift": real(rng, h), "mask": pick(rng, None, ids(2))}
    if rng.random() < 0.3:
        inputs["positions"] = ids(6)
    return microsoft("EmbedLayerNormalization", inputs, {"epsilon": 1e-5}, ["y", "mask_index"])


def fused_matmul(rng):
    m, n, k = (int(rng.integers(1, 5)) for _ in range(3))
    batch = rng.integers(1, 4, rng.integers(0, 3)).tolist()
    attributes = {name: int(rng.integers(0, 2)) for name in ("transA", "transB")}
    attributes["alpha"] = float(pick(rng, 1, 0.3))
    shapes = []
    for name, rows, columns in (("A", m, k), ("B", k, n)):
        flip = attributes["trans" + name]
        rows, columns = (columns, rows) if flip else (rows, columns)
        shape = [*batch, rows, columns]
        if len(batch) and rng.random() < 0.4:
            attributes["transBatch" + name] = 1
            shape = [rows, *batch, columns]
        shapes.append(shape)
    return microsoft("FusedMatMul", {"a": real(rng, *shapes[0]), "b": real(rng, *shapes[1])},
                     attributes)


def fused(rng):
    kind, alpha, beta = pick(rng, ("Relu", 0, 0), ("LeakyRelu", 0.3, 0), ("Sigmoid", 0, 0),
                             ("Tanh", 0, 0), ("Clip", -0.2, 0.5), ("HardSigmoid", 0.3, 0.4))
    if rng.random() < 0.4:
        m, n, k = (int(rng.integers(1, 5)) for _ in range(3))
        attributes = {"activation": kind, "alpha": 0.7}
        if alpha:
            attributes["activation_alpha"] = alpha
        if beta:
            attributes["activation_beta"] = beta
        return microsoft("FusedGemm", {"a": real(rng, m, k), "b": real(rng, k, n),
                                       "c": real(rng, n)}, attributes)
    attributes = {"activation": kind, "pads": [1, 0, 0, 1], "kernel_shape": [2, 3]}
    if alpha:
        attributes["activation_params"] = [alpha, beta] if kind != "LeakyRelu" else [alpha]
    inputs = {"x": real(rng, 2, 3, 5, 6), "w": real(rng, 4, 3, 2, 3),
              "b": pick(rng, None, real(rng, 4)), "z": pick(rng, None, real(rng, 2, 4, 5, 5))}
    return microsoft("FusedConv", inputs, attributes)


def mask_of(rng, b, s, total):
    if rng.random() < 0.5:
        return rng.integers(1, total + 1, b).astype(np.int32)
    mask = rng.integers(0, 2, pick(rng, (b, total), (b, s, total))).astype(np.int32)
    mask[..., 0] = 1  # a row of which all is barred is made of what float32 leaves of -10000 + score
    return mask


def attention(rng):
    b, s, n, d = (int(rng.integers(1, 5)) for _ in range(4))
    total, attributes = int(rng.integers(1, 6)), {"num_heads": n}
    if rng.random() < 0.3:
        attributes["scale"] = 0.7
    if rng.random() < 0.5:
        c, h = int(rng.integers(1, 6)), n * d
        inputs = {"x": real(rng, b, s, c), "w": real(rng, c, 3 * h), "b": real(rng, 3 * h),
                  "mask": pick(rng, None, mask_of(rng, b, s, s)), "past": None,
                  "added": pick(rng, None, real(rng, b, n, s, s))}
        if inputs["mask"] is None and rng.random() < 0.4:
            attributes["unidirectional"] = 1
        return microsoft("Attention", inputs, attributes)
    inputs = {"q": real(rng, b, s, n * d), "k": real(rng, b, total, n * d),
              "v": real(rng, b, total, n * d), "b": pick(rng, None, real(rng, 3 * n * d)),
              "mask": pick(rng, None, mask_of(rng, b, s, total)),
              "added": pick(rng, None, real(rng, 1, n, s, total))}
    if rng.random() < 0.3:
        inputs["k"], inputs["v"] = real(rng, b, n, total, d), real(rng, b, n, total, d)
        inputs["b"] = None
    return microsoft("MultiHeadAttention", inputs, attributes)


def vectors(rng):
    shape = (2, *rng.integers(1, 5, 3).tolist())
    kind = str(pick(rng, "LRN", "MeanVarianceNormalization", "LpNormalization"))
    attributes = {"LRN": {"size": int(pick(rng, 1, 3, 5)), "alpha": 0.3, "beta": 0.6, "bias": 1.5},
                  "MeanVarianceNormalization": {"axes": pick(rng, [0, 2, 3], [1, 3])},
                  "LpNormalization": {"p": int(pick(rng, 1, 2)), "axis": int(rng.integers(-4, 4))}}
    return Node(kind, {"x": real(rng, *shape)}, attributes[kind], opset=13)


def rotary(rng):
    b, n, s, half = (int(rng.integers(1, 4)) for _ in range(4))
    x = pick(rng, real(rng, b, s, n * 2 * half), real(rng, b, n, s, 2 * half))
    positions = pick(rng, np.array([2]), rng.integers(0, 7, (b, s)))
    inputs = {"x": x, "positions": positions, "cos": real(rng, 7, half), "sin": real(rng, 7, half)}
    return microsoft("RotaryEmbedding", inputs, {"interleaved": int(rng.integers(0, 2))})


def lp_pool(rng):
    p, shape = int(rng.integers(1, 4)), (2, 2, *rng.integers(4, 7, 2).tolist())
    if rng.random() < 0.3:
        return Node("GlobalLpPool", {"x": real(rng, *shape)}, {"p": p})
    return Node("LpPool", {"x": real(rng, *shape)},
                {"p": p, "kernel_shape": [2, 3], "strides": rng.integers(1, 3, 2).tolist(),
                 "pads": [1, 0, 0, 2], "dilations": pick(rng, [1, 1], [2, 1]),
                 "ceil_mode": int(rng.integers(0, 2))})


def grid_sample(rng):
    old = rng.random() < 0.3
    names = ("bilinear", "nearest", "bicubic") if old else ("linear", "nearest", "cubic")
    attributes = {"mode": str(pick(rng, *names)), "align_corners": int(rng.integers(0, 2)),
                  "padding_mode": str(pick(rng, "zeros", "border", "reflection"))}
    axes = 3 if not old and attributes["mode"] != "cubic" and rng.random() < 0.3 else 2
    x = real(rng, 2, 3, *rng.integers(2, 6, axes).tolist())
    grid = 1.5 * real(rng, 2, *rng.integers(1, 5, axes).tolist(), axes)
    return Node("GridSample", {"x": x, "grid": grid}, attributes, opset=16 if old else 20)


def roi_align(rng):
    attributes = {"output_height": int(rng.integers(1, 4)), "output_width": int(rng.integers(1, 4)),
                  "sampling_ratio": int(rng.integers(0, 3)), "mode": str(pick(rng, "avg", "max")),
                  "spatial_scale": float(pick(rng, 1, 0.6))}
    if rng.random() < 0.5:
        attributes["coordinate_transformation_mode"] = "output_half_pixel"
    boxes = np.sort(rng.uniform(-2, 12, (5, 2, 2)), axis=1).reshape(5, 4).astype(np.float32)
    return Node("RoiAlign", {"x": real(rng, 2, 3, 8, 9), "boxes": boxes,
                             "image": rng.integers(0, 2, 5)}, attributes, opset=16)


def max_indices(rng):
    axes = int(rng.integers(1, 4))
    attributes = {"kernel_shape": [2, 3, 2][:axes], "strides": rng.integers(1, 3, axes).tolist(),
                  "pads": [1, 0, 1][:axes] + [0, 2, 1][:axes],
                  "dilations": rng.integers(1, 3, axes).tolist(),
                  "storage_order": int(rng.integers(0, 2))}
    return Node("MaxPool", {"x": real(rng, 2, 2, *rng.integers(5, 8, axes).tolist())}, attributes,
                outputs=2, opset=12)


def quantized(rng, shape, name, kind):
    return {name: rng.integers(*((0, 256) if kind == np.uint8 else (-128, 128)), shape).astype(kind),
            f"{name} scale": np.array(rng.uniform(0.01, 0.1), np.float32),
            f"{name} zero": np.array(rng.integers(0, 100), kind)}


def qlinear(rng):
    kind = pick(rng, np.uint8, np.int8)
    op = str(pick(rng, "Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "AveragePool",
                  "GlobalAveragePool", "Concat"))
    shape = (2, 3, *rng.integers(3, 6, 2).tolist())
    end = {k: v for k, v in quantized(rng, (), "y", kind).items() if " " in k}
    inputs, attributes = quantized(rng, shape, "a", kind), {}
    if op in ("Add", "Mul", "Concat"):
        other = pick(rng, shape, shape[1:], (3, 1, 1)) if op != "Concat" else shape
        inputs |= quantized(rng, other, "b", kind)
    if op == "Concat":
        return microsoft("QLinearConcat", end | inputs, {"axis": int(rng.integers(0, 4))})
    if op == "Softmax":
        attributes = {"axis": int(rng.integers(0, 4)), "opset": int(pick(rng, 11, 13))}
        end["y scale"], end["y zero"] = np.float32(1 / 256), np.array(0 if kind == np.uint8
                                                                      else -128, kind)
    if op == "LeakyRelu":
        attributes = {"alpha": 0.3}
    if op == "AveragePool":
        attributes = {"kernel_shape": [2, 3], "pads": [1, 0, 0, 2],
                      "count_include_pad": int(rng.integers(0, 2))}
    return microsoft("QLinear" + op, inputs | end, attributes)


def qgemm(rng):
    m, n, k = (int(rng.integers(1, 6)) for _ in range(3))
    trans = int(rng.integers(0, 2))
    inputs = quantized(rng, (m, k), "a", np.uint8)
    inputs |= quantized(rng, (n, k) if trans else (k, n), "b", np.int8)
    if rng.random() < 0.5:
        inputs["b scale"] = rng.uniform(0.01, 0.1, n).astype(np.float32)
        inputs["b zero"] = np.zeros(n, np.int8)
    inputs["c"] = pick(rng, None, rng.integers(-99, 99, n).astype(np.int32))
    if rng.random() < 0.5:
        inputs |= {k: v for k, v in quantized(rng, (), "y", np.uint8).items() if " " in k}
    return microsoft("QGemm", inputs, {"transB": trans})


def matmul_nbits(rng):
    n, k, bits = int(rng.integers(1, 9)), int(rng.integers(1, 70)), int(pick(rng, 4, 4, 8))
    block = int(pick(rng, 16, 32))
    blocks = -(-k // block)
    inputs = {"a": real(rng, 2, 3, k),
              "b": rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
              "scales": real(rng, n * blocks),
              "zeros": pick(rng, None, rng.integers(0, 256, n * -(-blocks * bits // 8))
                            .astype(np.uint8)),
              "order": None, "bias": pick(rng, None, real(rng, n))}
    return Node("MatMulNBits", inputs, {"K": k, "N": n, "bits": bits, "block_size": block},
                domain="com.microsoft", fixed=("b", "scales", "zeros"))


def group_query(rng):
    b, s, before, half = (int(rng.integers(1, 4)) for _ in range(4))
    heads, each, prompt = int(rng.integers(1, 3)), int(rng.integers(1, 3)), rng.random() < 0.4
    n, size = heads * each, 8 * half  # onnxruntime wants multiples of 8
    packed, room = rng.random() < 0.3, before + s
    past = [None, None] if prompt else [real(rng, b, heads, before, size) for _ in range(2)]
    kv = [None, None] if packed else [real(rng, b, s, heads * size) for _ in range(2)]
    attributes = {"num_heads": n, "kv_num_heads": heads, "do_rotary": int(rng.integers(0, 2)),
                  "softcap": float(pick(rng, 0, 2)), "local_window_size": int(pick(rng, -1, 2)),
                  "rotary_interleaved": int(rng.integers(0, 2))}
    total = s if prompt else room
    inputs = {"q": real(rng, b, s, (n + 2 * heads * packed) * size), "k": kv[0], "v": kv[1],
              "past k": past[0], "past v": past[1],
              "lengths": np.full(b, total - 1, np.int32), "total": np.array([total], np.int32)}
    if attributes["do_rotary"]:
        angle = rng.uniform(0, 6, (room, size // 2))
        inputs |= {"cos": np.cos(angle).astype(np.float32), "sin": np.sin(angle).astype(np.float32)}
    return microsoft("GroupQueryAttention", inputs, attributes, outputs=3)


DRAW = {"GroupQueryAttention": group_query, "QLinear": qlinear, "QGemm": qgemm, "MatMulNBits": matmul_nbits, "GridSample": grid_sample, "RoiAlign": roi_align, "MaxPool with indices": max_indices,
        "RotaryEmbedding": rotary, "LpPool": lp_pool, "attention": attention, "LRN and its kin": vectors, "Gelu and its kin": gelus, "SkipLayerNormalization": skip_norm,
        "EmbedLayerNormalization": embed_norm, "FusedMatMul": fused_matmul,
        "FusedConv, FusedGemm": fused, "ConvTranspose": conv_transpose, "blocks": blocks, "Resize": resize, "Upsample": upsample, "LayerNormalization": layer_norm,
        "InstanceNormalization": instance_norm, "GroupNormalization": group_norm}


def main():
    ort.set_default_logger_severity(4)
    run_model = str(driver("run_model"))
    with tempfile.TemporaryDirectory() as folder:
        for label, draw in DRAW.items():
            if sys.argv[1:] and label not in sys.argv[1:]:
                continue
            ran = sum(agrees(run_model, draw(np.random.default_rng(seed)), folder)
                      for seed in range(DRAWS))
            print(f"{label}: {ran} of {DRAWS} nodes agree, the others onnxruntime refuses")
            assert ran >= DRAWS // 2, label


if __name__ == "__main__":
    main()
