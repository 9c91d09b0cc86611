# SPDX-License-Identifier: Apache-2.0
"""Our importance against JAX's in float64."""
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import reference_ggn
from paths import ROOT, driver

TOLERANCE = 1e-5  # of each tensor's norm


def ours(model_path, data_path, *options, program="run_importance"):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "h.npz")
        subprocess.run([driver(program), model_path, data_path, out,
                        *options], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        with np.load(out) as h:
            return {name: h[name] for name in h.files}


class Case(unittest.TestCase):
    # Elements from this part of their tensor's largest on agree to this relative tolerance. An
    # activation near zero has few right digits in float32 and enters as a square, so what ships is
    # held to less here than the same code compiled for float64, which shows that rounding is all.
    elements = {"run_importance": (1e-2, 1e-5), "run_importance_f64": (1e-6, 1e-5)}
    norms = {"run_importance": TOLERANCE, "run_importance_f64": TOLERANCE}

    def compare(self, model, data, reference, names, *options):
        for program, (part, tolerance) in self.elements.items():
            h = ours(model, data, *options, program=program)
            for name in names:
                with self.subTest(program=program, weight=name):
                    self.compare_one(h[name].astype(np.float64), reference[name], part, tolerance,
                                     self.norms[program])

    def compare_one(self, a, b, part, tolerance, norm_tolerance):
        self.assertEqual(a.shape, b.shape)
        self.assertGreater(b.max(), 0)
        norm = np.linalg.norm(a - b) / np.linalg.norm(b)
        matters = b > part * b.max()
        worst = (np.abs(a - b)[matters] / b[matters]).max()
        if os.environ.get("SHOW"):
            print(f"norm {norm:.1e} element {worst:.1e}", self.id(), self._subtest)
        self.assertLessEqual(norm, norm_tolerance)
        self.assertLessEqual(worst, tolerance)
        self.assertTrue((a[b == 0] <= 1e-12 * b.max()).all(), "zeros")


class LeNet(Case):
    @classmethod
    def setUpClass(cls):
        cls.path = os.path.join(ROOT, "testdata", "lenet5_mnist.onnx")
        cls.images = np.load(os.path.join(ROOT, "testdata", "mnist_calibration.npy"))[::63]
        cls.folder = tempfile.TemporaryDirectory()
        cls.data = os.path.join(cls.folder.name, "images.npy")
        np.save(cls.data, cls.images)
        model = onnx.load(cls.path)
        # Scaled as the product does it: the float32 nearest to x / 255.
        scaled = (cls.images.astype(np.float64) / 255).astype(np.float32)
        cls.names = [t.name for t in model.graph.initializer
                     if t.data_type == TensorProto.FLOAT]
        cls.reference = reference_ggn.diagonal(model, ["logits"],
                                               {model.graph.input[0].name: scaled})

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_exact(self):
        self.assertEqual(len(self.images), 16)
        for threads in (1, 2):
            self.compare(self.path, self.data, self.reference, self.names, f"threads={threads}")

    def test_a_short_block_counts_as_much(self):
        """Blocks are of 32 samples: 48 of them, three times the same 16, have the same mean."""
        data = os.path.join(self.folder.name, "thrice.npy")
        np.save(data, np.concatenate([self.images] * 3))
        self.compare(self.path, data, self.reference, self.names, "threads=2")

    def test_draws(self):
        h = ours(self.path, self.data, "exact=0", "draws=400", "seed=5")
        for name in self.names:
            b = self.reference[name]
            error = np.linalg.norm(h[name] - b) / np.linalg.norm(b)
            self.assertLess(error, 0.2, name)
            self.assertGreater(error, 1e-4, f"{name}: these are no draws")


class ResNet(Case):
    # Rounding adds up over 32 layers, and an activation next to zero may fall on the other side of a
    # ReLU: in float32 that depends on the order in which BLAS sums, which is another for each kind of
    # processor (seen: 3e-6 of a norm with one kernel, 3e-5 with another). In float64 it does not.
    elements = {"run_importance": (1e-1, 2e-3), "run_importance_f64": (1e-6, 1e-5)}
    norms = {"run_importance": 1e-4, "run_importance_f64": TOLERANCE}

    def test_batch_norm_and_shortcuts(self):
        """Shortcuts of Slice and Pad whose shapes the graph computes; batch norm as ops."""
        path = os.path.join(ROOT, "testdata", "resnet32_bn.onnx")
        images = np.load(os.path.join(ROOT, "testdata", "cifar10_calibration.npy"))[:3]
        mean, std = np.array([[.485, .456, .406], [.229, .224, .225]])[:, :, None, None]
        scaled = ((images / 255 - mean) / std).astype(np.float32)
        model = onnx.load(path)
        names = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
        reference = reference_ggn.diagonal(model, ["logits"],
                                           {model.graph.input[0].name: scaled})
        with tempfile.TemporaryDirectory() as folder:
            np.save(os.path.join(folder, "x.npy"), scaled)
            self.compare(path, os.path.join(folder, "x.npy"), reference, names, "threads=2")


class Small(Case):
    """Random weights in small graphs: each kind of output, batches that can be squared and not."""

    def setUp(self):
        self.random = np.random.default_rng(8)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def tensor(self, name, *shape, spread=1.0, about=0.0):
        values = about + spread * self.random.standard_normal(shape)
        return numpy_helper.from_array(values.astype(np.float32), name)

    def check(self, nodes, tensors, input_shape, outputs, kinds, count, names, batch="n"):
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT,
                                                       [batch] + input_shape)],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        path, data = (os.path.join(self.folder.name, f) for f in ("m.onnx", "x.npy"))
        onnx.save(model, path)
        x = self.random.standard_normal([count] + input_shape).astype(np.float32)
        np.save(data, x)
        if batch != "n":
            x = x[:count - count % batch]  # whole batches only
        reference = reference_ggn.diagonal(model, kinds, {"x": x})
        self.compare(path, data, reference, names, "threads=2", "exact=1000")

    def convolutional(self, head, outputs, kinds, tensors=()):
        nodes = [
            helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 1]),
            helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"],
                             epsilon=1e-3),
            helper.make_node("Relu", ["b"], ["c"]),
            helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[3, 2], strides=[1, 2],
                             pads=[1, 0, 1, 1]),
            helper.make_node("Conv", ["d", "w2"], ["e"], group=2, pads=[2, 2, 2, 2],
                             dilations=[2, 2]),
            helper.make_node("Add", ["d", "e"], ["f"]),
        ]
        body = [self.tensor("w1", 6, 3, 3, 3, spread=0.4), self.tensor("b1", 6),
                self.tensor("gamma", 6, about=1, spread=0.2), self.tensor("beta", 6),
                self.tensor("mean", 6), numpy_helper.from_array(
                    self.random.uniform(0.5, 2, 6).astype(np.float32), "var"),
                self.tensor("w2", 6, 3, 3, 3, spread=0.3)]
        names = ["w1", "b1", "gamma", "beta", "w2"] + [t.name for t in tensors]
        self.check(nodes + head, body + list(tensors), [3, 9, 8], outputs, kinds, 37, names)

    def test_logits(self):
        self.convolutional(
            [helper.make_node("GlobalAveragePool", ["f"], ["g"]),
             helper.make_node("Flatten", ["g"], ["v"]),
             helper.make_node("Gemm", ["v", "w3", "b3"], ["y"], transB=1, alpha=0.5)],
            ["y"], ["logits"], [self.tensor("w3", 5, 6, spread=3), self.tensor("b3", 5)])

    def test_class_map(self):
        self.convolutional(
            [helper.make_node("Conv", ["f", "w3"], ["g"]),
             helper.make_node("Softmax", ["g"], ["y"], axis=1)],
            ["y"], ["probabilities"], [self.tensor("w3", 3, 6, 1, 1)])

    def test_coins_beside_values(self):
        self.convolutional(
            [helper.make_node("GlobalAveragePool", ["f"], ["g"]),
             helper.make_node("Flatten", ["g"], ["v"]),
             helper.make_node("Gemm", ["v", "w3"], ["u"]),
             helper.make_node("Sigmoid", ["u"], ["y"]),
             helper.make_node("Tanh", ["u"], ["z"])],
            ["y", "z"], ["bernoulli", "values"], [self.tensor("w3", 6, 4)])

    def test_sequence(self):
        """Rows of a sequence share the weights, which cross terms of the rows would show."""
        self.check(
            [helper.make_node("MatMul", ["x", "w1"], ["a"]),
             helper.make_node("Add", ["a", "b1"], ["b"]),
             helper.make_node("Tanh", ["b"], ["c"]),
             helper.make_node("Mul", ["c", "s"], ["d"]),
             helper.make_node("MatMul", ["d", "w2"], ["e"]),
             helper.make_node("Softmax", ["e"], ["y"], axis=-1)],
            [self.tensor("w1", 4, 6), self.tensor("b1", 6), self.tensor("s", 1, 5, 1),
             self.tensor("w2", 6, 3)],
            [5, 4], ["y"], ["probabilities"], 33, ["w1", "b1", "s", "w2"])

    def test_batch_written_into_the_graph(self):
        for batch in (1, 4):
            self.check(
                [helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
                 helper.make_node("Relu", ["a"], ["b"]),
                 helper.make_node("MatMul", ["b", "w2"], ["y"])],
                [self.tensor("w1", 5, 7), self.tensor("b1", 7), self.tensor("w2", 7, 3)],
                [5], ["y"], ["logits"], 11, ["w1", "b1", "w2"], batch=batch)

    def test_a_weight_in_two_places(self):
        """The square of a sum, not a sum of squares."""
        self.check(
            [helper.make_node("MatMul", ["x", "w"], ["a"]),
             helper.make_node("Tanh", ["a"], ["b"]),
             helper.make_node("MatMul", ["b", "w"], ["c"]),
             helper.make_node("Tanh", ["c"], ["d"]),
             helper.make_node("Gemm", ["d", "w", "v"], ["y"], transB=1)],
            [self.tensor("w", 6, 6), self.tensor("v", 6)],
            [6], ["y"], ["logits"], 40, ["w", "v"])


if __name__ == "__main__":
    unittest.main()
