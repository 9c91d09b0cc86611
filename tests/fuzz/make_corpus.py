#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into tests/fuzz/corpus/TARGET/: small files of every kind.

    make_corpus.py PROGRAM      (a built onnxpress, which writes the coded models; needs the program zstd)

Models of one op are the ONNX project's own node tests, with a weight before them, so that there is
something to derive by; models of several ops are written here. Files of findings (found-*) are not touched.
"""
import io
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper as nh

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
MOST_BYTES = 2500
rng = np.random.default_rng(1)


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def floats(*shape, scale=0.5):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def model(nodes, inputs, outputs, weights, opset=13, functions=(), domains=()):
    """inputs and outputs: {name: (type, shape)}; weights: {name: array}."""
    infos = [[h.make_tensor_value_info(n, t, s) for n, (t, s) in d.items()] for d in (inputs, outputs)]
    graph = h.make_graph(nodes, "g", *infos, [nh.from_array(np.asarray(a), n) for n, a in weights.items()])
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid(d, 1) for d in domains]
    made = h.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)
    made.producer_name = ""
    return made


# ---- models of one op ----

def runs(m, feeds):
    try:
        onnxruntime.set_default_logger_severity(4)
        session = onnxruntime.InferenceSession(m.SerializeToString())
        session.run(None, feeds)
        return True
    except Exception:  # onnxruntime has one class a reason
        return False


def with_weight(case, free):
    """The case with a weight times its first float input; all other inputs become initializers."""
    m = onnx.ModelProto()
    m.CopyFrom(case.model)
    graph, arrays = m.graph, case.data_sets[0][0]
    kept = next((k for k, a in enumerate(arrays) if isinstance(a, np.ndarray) and a.dtype == np.float32
                 and 0 < a.size <= 400 and a.ndim > 0), None)
    if kept is None:
        kept = 0
    values = [(graph.input[k].name, a) for k, a in enumerate(arrays)]
    if not values or any(not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub" for _, a in values):
        return None, None
    name, array = values[kept]
    for n, a in values:
        if n != name and n:
            graph.initializer.append(nh.from_array(a, n))
    shape = list(array.shape)
    if array.dtype == np.float32 and array.ndim > 0:
        for node in graph.node:
            for k, n in enumerate(node.input):
                if n == name:
                    node.input[k] = "x_"
        graph.node.insert(0, h.make_node("Mul", [name, "w_"], ["x_"]))
        graph.initializer.append(nh.from_array(1 + floats(*shape[1:], scale=0.1), "w_"))
        if free:
            shape[0] = "N"
    elem = graph.input[kept].type.tensor_type.elem_type
    del graph.input[:]
    graph.input.append(h.make_tensor_value_info(name, elem, shape))
    del graph.value_info[:]
    for o in graph.output:
        o.CopyFrom(h.make_tensor_value_info(o.name, o.type.tensor_type.elem_type, None))
    m.producer_name = ""
    return m, {name: array}


def node_models():
    known = set(re.findall(r'"(\w+)"', "".join(p.read_text() for p in (ROOT / "src/ops").glob("*.c"))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases
        cases = collect_testcases(None)
    best = {}
    for case in cases:
        if not case.model or len(case.model.graph.node) != 1 or case.model.functions:
            continue
        op = case.model.graph.node[0].op_type
        if op not in known or case.model.ByteSize() > MOST_BYTES:
            continue
        m, feeds = with_weight(case, True)
        if m is None:
            continue
        ok = runs(m, feeds) and runs(m, {n: np.repeat(a, 2, 0)[:2] if a.ndim else a
                                          for n, a in feeds.items()})
        if not ok:
            m, feeds = with_weight(case, False)
        size = m.ByteSize()
        # Of the cases of an op the one that says most in its attributes, if it is small.
        rank = (size <= MOST_BYTES, len(m.graph.node[-1].attribute), -size)
        if size <= MOST_BYTES and (op not in best or rank > best[op][0]):
            best[op] = (rank, m)
    return {op.lower(): m for op, (_, m) in sorted(best.items())}


# ---- models of several ops ----

def network():
    nodes = [h.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1]),
             h.make_node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"]),
             h.make_node("Relu", ["n"], ["r"]), h.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
             h.make_node("Flatten", ["p"], ["f"]), h.make_node("Gemm", ["f", "w2", "b2"], ["g"], transB=1),
             h.make_node("Softmax", ["g"], ["y"], axis=-1)]
    return model(nodes, {"x": (T.FLOAT, ["N", 1, 4, 4])}, {"y": (T.FLOAT, None)},
                 {"w1": floats(8, 1, 3, 3), "b1": floats(8), "s": np.abs(floats(8)) + 1,
                  "w2": floats(5, 32), "b2": floats(5)})


def recurrent():
    nodes = [h.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=3),
             h.make_node("Squeeze", ["h", "zero"], ["s"]), h.make_node("MatMul", ["s", "m"], ["y"])]
    return model(nodes, {"x": (T.FLOAT, [5, "N", 4])}, {"y": (T.FLOAT, None)},
                 {"w": floats(1, 12, 4), "r": floats(1, 12, 3), "m": floats(3, 16),
                  "zero": np.array([0], np.int64)})


def branches():
    then = h.make_graph([h.make_node("MatMul", ["x", "w"], ["t"])], "t", [],
                        [h.make_tensor_value_info("t", T.FLOAT, None)])
    other = h.make_graph([h.make_node("Mul", ["x", "v"], ["e"])], "e", [],
                         [h.make_tensor_value_info("e", T.FLOAT, None)], [nh.from_array(floats(8), "v")])
    nodes = [h.make_node("ReduceSum", ["x"], ["s"], keepdims=0), h.make_node("Greater", ["s", "zero"], ["c"]),
             h.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    return model(nodes, {"x": (T.FLOAT, ["N", 8])}, {"y": (T.FLOAT, None)},
                 {"w": floats(8, 8), "zero": np.float32(0)})


def loop(trips=3):
    body = h.make_graph(
        [h.make_node("MatMul", ["a", "w"], ["m"]), h.make_node("Tanh", ["m"], ["b"]),
         h.make_node("Identity", ["go"], ["on"]), h.make_node("Identity", ["b"], ["each"])], "b",
        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("go", T.BOOL, []),
         h.make_tensor_value_info("a", T.FLOAT, None)],
        [h.make_tensor_value_info(n, t, None) for n, t in (("on", T.BOOL), ("b", T.FLOAT), ("each", T.FLOAT))])
    return model([h.make_node("Loop", ["n", "", "x"], ["y", "all"], body=body)], {"x": (T.FLOAT, ["N", 8])},
                 {"y": (T.FLOAT, None), "all": (T.FLOAT, None)},
                 {"w": floats(8, 8), "n": np.array(trips, np.int64)})


def scan():
    body = h.make_graph([h.make_node("MatMul", ["e", "w"], ["m"]), h.make_node("Add", ["s", "m"], ["t"]),
                         h.make_node("Identity", ["t"], ["o"])], "b",
                        [h.make_tensor_value_info(n, T.FLOAT, [8]) for n in ("s", "e")],
                        [h.make_tensor_value_info(n, T.FLOAT, [8]) for n in ("t", "o")])
    return model([h.make_node("Scan", ["z", "x"], ["y", "all"], num_scan_inputs=1, body=body)],
                 {"x": (T.FLOAT, [4, 8])}, {"y": (T.FLOAT, None), "all": (T.FLOAT, None)},
                 {"w": floats(8, 8), "z": floats(8)})


def functions():
    f = h.make_function("d", "F", ["a", "b"], ["o"], [
        h.make_node("MatMul", ["a", "b"], ["m"]), h.make_node("LeakyRelu", ["m"], ["o"])],
        [h.make_opsetid("", 13)], ["alpha"])
    f.node[1].attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    g = h.make_function("d", "G", ["a", "b"], ["o"], [
        h.make_node("F", ["a", "b"], ["m"], domain="d"), h.make_node("F", ["m", "b"], ["o"], domain="d")],
        [h.make_opsetid("", 13), h.make_opsetid("d", 1)])
    return model([h.make_node("G", ["x", "w"], ["y"], domain="d")], {"x": (T.FLOAT, ["N", 8])},
                 {"y": (T.FLOAT, None)}, {"w": floats(8, 8)}, functions=[f, g], domains=["d"])


def tokens():
    nodes = [h.make_node("Gather", ["table", "ids"], ["e"]),
             h.make_node("LayerNormalization", ["e", "one", "one"], ["n"]),
             h.make_node("MatMul", ["n", "w"], ["q"]), h.make_node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
             h.make_node("MatMul", ["q", "k"], ["a"]), h.make_node("Softmax", ["a"], ["p"]),
             h.make_node("MatMul", ["p", "q"], ["y"])]
    return model(nodes, {"ids": (T.INT64, ["N", "L"])}, {"y": (T.FLOAT, None)},
                 {"table": floats(12, 8), "one": np.ones(8, np.float32), "w": floats(8, 8)}, opset=17)


def shapes():
    nodes = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "zero"], ["n"]),
             h.make_node("Unsqueeze", ["n", "axes"], ["u"]), h.make_node("Concat", ["u", "rest"], ["to"], axis=0),
             h.make_node("Reshape", ["x", "to"], ["r"]), h.make_node("Resize", ["r", "", "scales"], ["big"]),
             h.make_node("Pad", ["big", "pads"], ["p"]), h.make_node("Conv", ["p", "w"], ["c"]),
             h.make_node("ConstantOfShape", ["size"], ["k"]), h.make_node("Expand", ["k", "size"], ["e"]),
             h.make_node("Tile", ["e", "size"], ["t"]), h.make_node("Range", ["zero", "two", "one"], ["g"]),
             h.make_node("ReduceSum", ["t"], ["sum"], keepdims=0), h.make_node("Add", ["c", "sum"], ["y"])]
    return model(nodes, {"x": (T.FLOAT, ["N", 16])}, {"y": (T.FLOAT, None), "g": (T.INT64, None)},
                 {"zero": np.array(0, np.int64), "one": np.array(1, np.int64), "two": np.array(2, np.int64),
                  "axes": np.array([0], np.int64), "rest": np.array([1, 4, 4], np.int64),
                  "scales": np.array([1, 1, 2, 2], np.float32), "size": np.array([2, 2], np.int64),
                  "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "w": floats(8, 1, 3, 3)})


def types():
    nodes = [h.make_node("Cast", ["h"], ["hf"], to=T.FLOAT), h.make_node("Cast", ["d"], ["df"], to=T.FLOAT),
             h.make_node("DequantizeLinear", ["q", "s", "z"], ["qf"]), h.make_node("MatMul", ["x", "hf"], ["a"]),
             h.make_node("MatMul", ["a", "df"], ["b"]), h.make_node("MatMul", ["b", "qf"], ["c"]),
             h.make_node("Constant", [], ["k"], value=nh.from_array(floats(8, 8))),
             h.make_node("MatMul", ["c", "k"], ["y"])]
    m = model(nodes, {"x": (T.FLOAT, ["N", 8])}, {"y": (T.FLOAT, None)},
              {"h": floats(8, 8).astype(np.float16), "d": floats(8, 8).astype(np.float64),
               "q": rng.integers(-9, 9, (8, 8)).astype(np.int8), "s": np.float32(0.1), "z": np.int8(0)})
    typed = m.graph.initializer.add(name="typed", data_type=T.FLOAT, dims=[2], float_data=[1, 2])
    assert typed.name
    outside = m.graph.initializer.add(name="outside", data_type=T.FLOAT, dims=[4],
                                      data_location=T.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "16"), ("length", "16")):
        outside.external_data.add(key=key, value=value)
    return m


def old():
    """Opset 9: what is lifted."""
    nodes = [h.make_node("Slice", ["x"], ["s"], axes=[1], starts=[0], ends=[12]),
             h.make_node("Clip", ["s"], ["c"], min=-1.0, max=1.0), h.make_node("Dropout", ["c"], ["d"]),
             h.make_node("MatMul", ["d", "w"], ["m"]), h.make_node("Pad", ["m"], ["p"], pads=[0, 0, 0, 1]),
             h.make_node("TopK", ["p", "k"], ["y", "i"]), h.make_node("Unsqueeze", ["y"], ["u"], axes=[0, 1]),
             h.make_node("Upsample", ["u", "scales"], ["z"], mode="nearest")]
    return model(nodes, {"x": (T.FLOAT, ["N", 16])}, {"y": (T.FLOAT, None), "z": (T.FLOAT, None)},
                 {"w": floats(12, 8), "k": np.array([3], np.int64),
                  "scales": np.array([1, 1, 1, 2], np.float32)}, opset=9)


def deep(depth=12):
    """If in If in If."""
    inner = [h.make_node("MatMul", ["x", "w"], ["r0"])]
    for k in range(depth):
        bodies = [h.make_graph(nodes, "b", [], [h.make_tensor_value_info(out, T.FLOAT, None)]) for nodes, out in
                  ((inner, f"r{k}"), ([h.make_node("Identity", ["x"], [f"q{k}"])], f"q{k}"))]
        inner = [h.make_node("If", ["c"], [f"r{k + 1}"], then_branch=bodies[0], else_branch=bodies[1])]
    return model(inner, {"x": (T.FLOAT, ["N", 8])}, {f"r{depth}": (T.FLOAT, None)},
                 {"w": floats(8, 8), "c": np.array(True)})


def greedy(op):
    """A few bytes that ask for very much."""
    size = np.array([1 << 20, 1 << 20], np.int64)
    number = lambda v: np.array(v, np.int64)
    nodes, weights = {
        "constantofshape": ([("ConstantOfShape", ["size"])], {"size": size}),
        "expand": ([("Expand", ["one", "size"])], {"size": size, "one": np.ones((1, 1), np.float32)}),
        "tile": ([("Tile", ["one", "size"])], {"size": size, "one": np.ones((1, 1), np.float32)}),
        "range": ([("Range", ["a", "b", "c"])], {"a": number(0), "b": number(1 << 40), "c": number(1)}),
        "pad": ([("Pad", ["one", "size4"])],
                {"size4": np.array([0, 1 << 30, 0, 1 << 30], np.int64), "one": np.ones((1, 1), np.float32)}),
        "onehot": ([("OneHot", ["i", "b", "v"])], {"i": number([1, 2]), "b": number(1 << 40),
                                                  "v": np.array([0, 1], np.float32)}),
        "resize": ([("Resize", ["one", "", "s"])], {"s": np.array([1 << 20, 1 << 20], np.float32),
                                                    "one": np.ones((1, 1), np.float32)}),
    }[op]
    nodes = [h.make_node(o, i, ["y"]) for o, i in nodes] + [h.make_node("MatMul", ["x", "w"], ["z"])]
    return model(nodes, {"x": (T.FLOAT, ["N", 8])}, {"y": (T.FLOAT, None), "z": (T.FLOAT, None)},
                 dict(weights, w=floats(8, 8)))


def whole_models():
    made = {f.__name__: f() for f in (network, recurrent, branches, loop, scan, functions, tokens, shapes,
                                      types, old, deep)}
    made["endless"] = loop(1 << 62)
    for op in ("constantofshape", "expand", "tile", "range", "pad", "onehot", "resize"):
        made["greedy-" + op] = greedy(op)
    return {name: m.SerializeToString() for name, m in made.items()}


# ---- the other targets ----

def arrays():
    made = {}
    for name, a in {"float": floats(3, 2), "labels": np.arange(4), "bytes": np.zeros((2, 3), np.uint8),
                    "scalar": np.float64(1), "half": np.ones(3, np.float16), "bool": np.array([True]),
                    "fortran": np.asfortranarray(floats(2, 3)), "empty": np.zeros((0, 2), np.float32),
                    "big-endian": np.arange(3, dtype=">i4")}.items():
        buffer = io.BytesIO()
        np.save(buffer, a)
        made[name + ".npy"] = buffer.getvalue()
    for name, save in (("stored", np.savez), ("deflated", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, x=floats(3, 2), label=np.arange(3))
        made[name + ".npz"] = buffer.getvalue()
    for name, data in made.items():
        write("arrays", name, data)


def samples():
    def number(n):
        return bytes([n]) if n < 64 else bytes([64 | n >> 8, n & 255])

    def row(name, *parts):
        parts = [nh.from_array(a, n).SerializeToString() for n, a in parts]
        sizes = ([len(p) for p in parts] + [0] * 3)[:3]
        write("samples", name, b"".join(number(n) for n in sizes) + b"".join(parts))

    row("one", ("x", floats(2, 3)))
    row("two-inputs", ("x", floats(2, 3)), ("y", np.arange(2)))
    row("two-sets", ("x", floats(2, 3)), ("y", np.arange(2)), ("x", floats(1, 3)), ("y", np.arange(1)))
    row("ragged", ("x", floats(2, 3)), ("y", np.arange(2)), ("x", floats(2, 4)), ("y", np.arange(3)))


def streams():
    for n, text in enumerate((b"", b"\x00\x01\x02\x03" * 8, bytes(60), bytes(range(100)), b"aab" * 30)):
        write("huffman", f"roundtrip{n}", bytes([0, 20, 9]) + text)
        for mode in (1, 2, 3):
            write("wavelet", f"symbols{mode}-{n}", bytes([mode, n, 11]) + text)
    write("huffman", "decode", bytes([1, 3, 5]) + bytes([1, 2, 2]) + bytes([0b01011010, 0]))
    write("huffman", "decode-single", bytes([1, 1, 8]) + bytes([1]) + bytes([0]))
    # Two levels: tails 1, 1, 2 and three runs.
    write("wavelet", "decode", bytes([0, 0, 1, 2, 1, 1, 2, 3, 0, 0, 1, 7, 8, 9, 0b01011000]))
    write("wavelet", "decode-pairs", bytes([0, 0, 2, 1, 3, 3, 2, 2, 2, 1, 2, 3, 4, 0b01101000]))


def frames(models):
    def pack(data):
        return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout

    for name in ("network", "loop"):
        write("expand", name, b"\x00" + pack(models[name]))
    write("expand", "zeros", b"\x00" + pack(bytes(1 << 20)))
    write("expand", "pack", b"\x01" + bytes(range(200)))


def coded(program, models):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        for name in ("network", "recurrent", "old"):
            (path / "m.onnx").write_bytes(models[name])
            for form in ("function", "inlined", "lookup", "plain"):
                for method in ("uniform", "kmeans"):
                    if form in ("lookup", "plain") and method == "kmeans":
                        continue
                    subprocess.run([program, "compress", path / "m.onnx", "-o", path / "s.onnx", "--form", form,
                                    "--method", method, "--step", "5" if method == "kmeans" else "0.2"], capture_output=True, check=False)
                    small = path / "s.onnx"
                    if small.exists():
                        write("restore", f"{name}-{form}-{method}", small.read_bytes())
                        small.unlink()


def main():
    models = whole_models()
    nodes = {name: m.SerializeToString() for name, m in node_models().items()}
    for name, data in {**nodes, **models}.items():
        write("run", name, data)
    for name, data in models.items():
        write("model", name, data)
        write("compress", name, data)
    arrays()
    samples()
    streams()
    frames(models)
    coded(sys.argv[1], models)


if __name__ == "__main__":
    main()
