# SPDX-License-Identifier: Apache-2.0
"""Models of opset 7 to 10 are lifted to 11 with equal answers in onnxruntime.

One-op models made here, of each op that changed in between, and the ONNX project's own cases of the
shapes that changed; what must be refused is refused with its reason; and compress writes the form
function for a model of each opset.
"""
import os
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paths import PROGRAM, driver

RNG = np.random.default_rng(3)


def model(opset, nodes, inputs, init=None, outputs=("y",), types=None):
    """One graph; inputs: name → array."""
    types = types or {}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
         for n, a in inputs.items()],
        [helper.make_tensor_value_info(n, types.get(n, T.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (init or {}).items()])
    made = helper.make_model(graph, ir_version=4,
                             opset_imports=[helper.make_opsetid("", opset)])
    return made


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def cases():
    x, image = floats(2, 3, 5), floats(1, 2, 6, 4)
    for opset in (7, 8, 9, 10):
        def one(name, op, inputs, init=None, types=None, outputs=("y",), **attributes):
            nodes = [helper.make_node(op, [*inputs, *(init or {})], list(outputs), **attributes)]
            return f"{name} {opset}", model(opset, nodes, inputs, init, outputs, types), inputs
        yield one("clip", "Clip", {"x": x}, min=-0.5, max=0.7)
        yield one("clip max", "Clip", {"x": x}, max=0.1)
        yield one("clip nothing", "Clip", {"x": x})
        yield one("pad", "Pad", {"x": x}, pads=[0, 1, 2, 0, 0, 1], value=1.5)
        yield one("pad reflect", "Pad", {"x": image}, pads=[0, 0, 1, 2, 0, 0, 2, 1], mode="reflect")
        yield one("pad edge", "Pad", {"x": image}, pads=[0, 0, 1, 2, 0, 0, 2, 1], mode="edge")
        yield one("dropout", "Dropout", {"x": x}, ratio=0.5)
        yield one("batch", "BatchNormalization", {"x": image},
                  {"s": floats(2), "b": floats(2), "m": floats(2), "v": abs(floats(2))})
        yield one("softmax", "Softmax", {"x": x}, axis=1)
        yield one("argmax", "ArgMax", {"x": x}, types={"y": T.INT64}, axis=1)
        yield one("split", "Split", {"x": x}, outputs=("y", "z"), axis=2, split=[2, 3])
        yield one("squeeze", "Squeeze", {"x": floats(1, 3)}, axes=[0])
        yield one("transposed conv", "ConvTranspose", {"x": image}, {"w": floats(2, 2, 3, 3)},
                  strides=[2, 2], pads=[1, 0, 1, 1], output_padding=[1, 0])
        yield one("average", "AveragePool", {"x": image}, kernel_shape=[3, 3],
                  auto_pad="SAME_UPPER", strides=[2, 2])
        yield one("max pool", "MaxPool", {"x": image}, kernel_shape=[3, 2], auto_pad="SAME_LOWER")
        yield one("reduce", "ReduceMean", {"x": x}, axes=[1], keepdims=0)
        if opset < 10:
            yield one("slice", "Slice", {"x": x}, starts=[1, -3], ends=[9, -1], axes=[1, 2])
            yield one("slice no axes", "Slice", {"x": x}, starts=[0, 1], ends=[2, 3])
            yield one("top", "TopK", {"x": x}, types={"i": T.INT64}, outputs=("y", "i"), k=2,
                      axis=1)
        else:
            yield one("slice", "Slice", {"x": x},
                      {"s": np.array([4, 1]), "e": np.array([-9, 9]), "a": np.array([2, 1]),
                       "t": np.array([-2, 1])})
            yield one("top", "TopK", {"x": x}, {"k": np.array([2])}, types={"i": T.INT64},
                      outputs=("y", "i"))
        for mode in ("nearest", "linear"):
            for scales in ([1, 1, 2, 3], [1, 1, 1.5, 2.3], [1, 1, 1, 1]):
                array = np.array(scales, np.float32)
                if opset < 9:
                    yield one(f"up {mode} {scales}", "Upsample", {"x": image}, mode=mode,
                              scales=[float(s) for s in scales])
                elif opset == 9:
                    yield one(f"up {mode} {scales}", "Upsample", {"x": image}, {"s": array},
                              mode=mode)
                else:
                    yield one(f"resize {mode} {scales}", "Resize", {"x": image}, {"s": array},
                              mode=mode)
            for scales in ([1, 1, 0.5, 0.7], [1, 1, 0.34, 1]):
                if opset == 10:
                    yield one(f"resize {mode} {scales}", "Resize", {"x": image},
                              {"s": np.array(scales, np.float32)}, mode=mode)
        if opset >= 9:
            yield one("one hot", "OneHot", {"x": np.array([0, -1, 2, 7])},
                      {"d": np.array([3]), "v": np.array([2, 5], np.float32)})
            yield one("scatter", "Scatter", {"x": x},
                      {"i": np.array([[[0, 2, 1, 1, 0]]]), "u": floats(1, 1, 5)}, axis=1)
            then = helper.make_graph([helper.make_node("Clip", ["x"], ["t"], max=0.2)], "t", [],
                                     [helper.make_tensor_value_info("t", T.FLOAT, [2, 3, 5])])
            other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "e", [],
                                      [helper.make_tensor_value_info("e", T.FLOAT, [2, 3, 5])])
            inputs = {"c": np.array(True), "x": x}
            yield f"if {opset}", model(opset, [helper.make_node(
                "If", ["c"], ["y"], then_branch=then, else_branch=other)], inputs), inputs


def refused():
    x, image = floats(2, 3), floats(1, 2, 6, 4)
    yield "its mask", model(9, [helper.make_node("Dropout", ["x"], ["y", "m"])], {"x": x})
    yield "spatial", model(8, [helper.make_node(
        "BatchNormalization", ["x", "s", "s", "s", "s"], ["y"], spatial=0)], {"x": image},
        {"s": floats(2)})
    yield "another shrinks", model(10, [helper.make_node("Resize", ["x", "s"], ["y"])],
                                   {"x": image}, {"s": np.array([1, 1, 2, .5], np.float32)})
    yield "computed", model(10, [helper.make_node("Identity", ["s"], ["t"]),
                                 helper.make_node("Resize", ["x", "t"], ["y"])],
                            {"x": image}, {"s": np.array([1, 1, 2, 2], np.float32)})
    yield "several floating", model(10, [helper.make_node("Clip", ["x"], ["y"], max=1.0)],
                                    {"x": x.astype(np.float16)}, types={"y": T.FLOAT16})
    yield "not known", model(9, [helper.make_node("ATen", ["x"], ["y"])], {"x": x})
    yield "has opset 6", model(6, [helper.make_node("Relu", ["x"], ["y"])], {"x": x})


def answers(made, inputs):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = made if isinstance(made, str) else made.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def shaped(made, inputs):
    """With the outputs' shapes, which the checker wants."""
    for output, value in zip(made.graph.output, answers(made, inputs), strict=True):
        output.CopyFrom(helper.make_tensor_value_info(
            output.name, output.type.tensor_type.elem_type, value.shape))
    return made


def lift(models, work):
    paths, folder = [], tempfile.mkdtemp(dir=work)
    for k, made in enumerate(models):
        paths += [os.path.join(folder, f"{k}.onnx"), os.path.join(folder, f"{k}.lifted.onnx")]
        onnx.save(made, paths[-2])
    done = subprocess.run([driver("rewrite_model"), "lift", *paths], check=True, capture_output=True, text=True)
    return done.stdout.splitlines(), paths[1::2]


def check_compress(work):
    """A network with an op that is lifted: the default form is the decoder's, and it answers."""
    for opset in (7, 9, 10):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]),
                 helper.make_node("Clip", ["h"], ["c"], min=0.0, max=6.0),
                 helper.make_node("MatMul", ["c", "v"], ["y"])]
        inputs = {"x": floats(8, 64)}
        made = model(opset, nodes, inputs, {"w": floats(64, 128), "v": floats(128, 64)})
        path, small = os.path.join(work, "net.onnx"), os.path.join(work, "small.onnx")
        back, plain = os.path.join(work, "back.onnx"), os.path.join(work, "plain.onnx")
        onnx.save(made, path)
        for out, form in ((small, []), (plain, ["--form", "plain"])):
            subprocess.run([PROGRAM, "compress", path, "-o", out, *form],
                           check=True, capture_output=True)
        found = onnx.load(small)
        assert len(found.functions) > 0 and found.opset_import[0].version == 11, opset
        subprocess.run([PROGRAM, "restore", small, "-o", back], check=True, capture_output=True)
        wanted = answers(made, inputs)[0]
        got, restored = answers(small, inputs)[0], answers(back, inputs)[0]
        assert np.array_equal(got, restored)
        error = np.square(got - wanted).sum() / np.square(wanted).sum()
        assert 0 < error < 0.01, (opset, error)


def main():
    names, models, inputs = zip(*cases())
    models = [shaped(*pair) for pair in zip(models, inputs, strict=True)]
    with tempfile.TemporaryDirectory() as work:
        lines, paths = lift(models, work)
        for name, made, given, line, path in zip(names, models, inputs, lines, paths, strict=True):
            assert line == "done 0", (name, line)
            assert onnx.load(path).opset_import[0].version == 11
            onnx.checker.check_model(path, full_check=True)
            for before, after in zip(answers(made, given), answers(path, given), strict=True):
                assert before.dtype == after.dtype and before.shape == after.shape, name
                assert np.array_equal(before, after), (name, before, after)
        words, models = zip(*refused())
        lines, paths = lift(models, work)
        for word, line, path in zip(words, lines, paths, strict=True):
            assert line.startswith("refused") and word in line, (word, line)
            assert not os.path.exists(path)
        check_compress(work)
    print(f"{len(names)} models lifted, {len(words)} refused")


if __name__ == "__main__":
    main()
