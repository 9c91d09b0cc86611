# SPDX-License-Identifier: Apache-2.0
"""The other estimators against JAX's derivatives in float64."""
import os
import subprocess
import sys
import tempfile
import unittest

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import reference_ggn as reference
from paths import ROOT, driver

PROGRAMS = ("run_importance", "run_importance_f64")


def ours(program, estimator, model, folder, x, labels=None, *options):
    """{weight: importance}, from files in the folder."""
    data, out, named = (os.path.join(folder, f) for f in ("x.npy", "h.npz", "labels.npy"))
    np.save(data, x)
    words = [f"estimator={estimator}", *options]
    if labels is not None:
        np.save(named, labels)
        words.append(f"labels={named}")
    subprocess.run([driver(program), model, data, out, *words], check=True,
                   stdout=subprocess.DEVNULL, cwd=ROOT)
    with np.load(out) as h:
        return {name: h[name].astype(np.float64) for name in h.files}


def cross_entropy(model, weights, inputs, targets):
    """Mean over the samples; targets are probabilities [samples, classes]."""
    logits = reference.run(model, weights, inputs)[0]
    return -(targets * jax.nn.log_softmax(logits, axis=1)).sum(axis=1).mean()


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def recursion(model, weights, inputs, target):
    """Becker and LeCun's recursion as it is stated, one node at a time, each with its full Jacobian
    and the diagonal of its second derivative; of one sample."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values.update({k: jnp.asarray(v) for k, v in weights.items()})
    values.update(inputs)
    calls = []
    for node in model.graph.node:
        arguments = [values[name] for name in node.input]
        rule, attributes = reference.OPS[node.op_type], reference.attributes(node)
        values[node.output[0]] = rule(attributes, *arguments)
        calls.append((node, rule, attributes, arguments))
    name = model.graph.output[0].name
    p = jax.nn.softmax(values[name], axis=1)
    first, second = {name: p - target}, {name: p * (1 - p)}
    for node, rule, attributes, arguments in reversed(calls):
        d, dd = (g[node.output[0]].reshape(-1) for g in (first, second))
        for k, (source, x) in enumerate(zip(node.input, arguments)):
            if x.dtype.kind != "f":
                continue

            def flat(v):
                changed = arguments[:k] + [v.reshape(x.shape)] + arguments[k + 1:]
                return rule(attributes, *changed).reshape(-1)
            slope = jax.jacfwd(flat)(x.reshape(-1))
            bend = jnp.diag(jax.hessian(lambda v: flat(v) @ d)(x.reshape(-1)))
            for store, added in ((first, d @ slope), (second, dd @ slope ** 2 + bend)):
                store[source] = store.get(source, 0) + added.reshape(x.shape)
    return {k: np.asarray(second[k]) for k in weights}


class Small(unittest.TestCase):
    def setUp(self):
        self.random = np.random.default_rng(4)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(self.folder, "m.onnx")

    def tensor(self, name, *shape):
        values = 0.5 * self.random.standard_normal(shape)
        return numpy_helper.from_array(values.astype(np.float32), name)

    def build(self, nodes, tensors, shape, count):
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"] + shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors)
        self.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        self.model.ir_version = 8
        onnx.save(self.model, self.path)
        self.x = self.random.standard_normal([count] + shape).astype(np.float32)
        self.weights = reference.weights_of(self.model)
        self.inputs = {"x": self.x.astype(np.float64)}

    def convolutional(self, count):
        """Convolution, batch norm, a shortcut, pools: 3 classes."""
        self.build(
            [helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
             helper.make_node("BatchNormalization", ["a", "s", "t", "m", "v"], ["b"]),
             helper.make_node("Tanh", ["b"], ["c"]),
             helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
             helper.make_node("Conv", ["d", "w2"], ["e"], pads=[1, 1, 1, 1], group=2),
             helper.make_node("Add", ["d", "e"], ["f"]),
             helper.make_node("Relu", ["f"], ["g"]),
             helper.make_node("GlobalAveragePool", ["g"], ["h"]),
             helper.make_node("Flatten", ["h"], ["k"]),
             helper.make_node("Gemm", ["k", "w3", "b3"], ["y"], transB=1, alpha=2.0)],
            [self.tensor("w1", 2, 2, 3, 3), self.tensor("b1", 2), self.tensor("s", 2),
             self.tensor("t", 2), self.tensor("m", 2),
             numpy_helper.from_array(np.array([0.5, 1.5], np.float32), "v"),
             self.tensor("w2", 2, 1, 3, 3), self.tensor("w3", 3, 2), self.tensor("b3", 3)],
            [2, 6, 6], count)
        return self.random.integers(0, 3, count)

    def smooth(self, count):
        self.build([helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
                    helper.make_node("Tanh", ["a"], ["b"]),
                    helper.make_node("MatMul", ["b", "w2"], ["y"])],
                   [self.tensor("w1", 3, 5), self.tensor("b1", 5), self.tensor("w2", 5, 3)],
                   [3], count)
        return self.random.integers(0, 3, count)

    def compare(self, h, expected, tolerance):
        self.assertEqual(set(h), set(expected))
        for name, b in expected.items():
            b = np.maximum(b, 0)
            self.assertEqual(h[name].shape, b.shape)
            self.assertGreater(b.max(), 0, name)
            self.assertLessEqual(np.abs(h[name] - b).max(), tolerance * b.max(), name)

    def test_becker_lecun(self):
        labels = self.convolutional(5)
        for with_labels in (False, True):
            own = jax.nn.softmax(reference.run(self.model, self.weights, self.inputs)[0], axis=1)
            targets = one_hot(labels, 3) if with_labels else own
            each = [recursion(self.model, self.weights, {"x": self.inputs["x"][s:s + 1]},
                              targets[s:s + 1]) for s in range(5)]
            expected = {k: sum(e[k] for e in each) / 5 for k in self.weights}
            for program, tolerance in zip(PROGRAMS, (1e-4, 1e-6)):
                h = ours(program, "becker-lecun", self.path, self.folder, self.x,
                         labels if with_labels else None)
                self.compare(h, expected, tolerance)

    def test_hutchinson(self):
        """Errors are what the other elements of the Hessian's rows make of random signs."""
        labels = self.smooth(20)
        names = sorted(self.weights)
        flat = jnp.concatenate([self.weights[n].reshape(-1) for n in names])
        sizes = np.concatenate([np.full(self.weights[n].size,
                                        np.sqrt((self.weights[n] ** 2).mean())) for n in names])

        def loss(v, targets):
            weights, at = {}, 0
            for n in names:
                size = self.weights[n].size
                weights[n] = v[at:at + size].reshape(self.weights[n].shape)
                at += size
            return cross_entropy(self.model, weights, self.inputs, targets)
        own = jax.nn.softmax(reference.run(self.model, self.weights, self.inputs)[0], axis=1)
        draws = 400
        for given, targets in ((None, own), (labels, one_hot(labels, 3))):
            hessian = np.asarray(jax.hessian(loss)(flat, targets))
            self.assertGreater(np.abs(hessian).max(), 0.01)
            off = (hessian - np.diag(np.diag(hessian))) * sizes / sizes[:, None]
            deviation = np.sqrt((off ** 2).sum(axis=1) / draws)
            for program in PROGRAMS:
                h = ours(program, "hutchinson", self.path, self.folder, self.x, given,
                         f"draws={draws}", "seed=3")
                got = np.concatenate([h[n].reshape(-1) for n in names])
                expected = np.diag(hessian)
                positive = (got > 0) & (expected > 0)
                self.assertGreater(positive.mean(), 0.5)
                apart = ((got - expected) / deviation)[positive]
                with self.subTest(program=program, labels=given is not None):
                    self.assertLess(np.abs(apart).max(), 5)
                    self.assertLess(np.sqrt((apart ** 2).mean()), 1.5)
                    self.assertGreater(np.sqrt((apart ** 2).mean()), 0.5)


class LeNet(unittest.TestCase):
    def test_empirical_fisher(self):
        path = os.path.join(ROOT, "testdata", "lenet5_mnist.onnx")
        with np.load(os.path.join(ROOT, "testdata", "mnist_test.npz")) as test:
            images, labels = test["image"][:200:5], test["label"][:200:5].astype(np.int64)
        labels[::3] = (labels[::3] + 1) % 10  # what the network is sure of has no gradient
        model = onnx.load(path)
        weights = reference.weights_of(model)
        scaled = (images.astype(np.float64) / 255).astype(np.float32).astype(np.float64)
        name = model.graph.input[0].name
        gradient = jax.jit(jax.grad(lambda w, x, t: cross_entropy(model, w, {name: x}, t)))
        total = {k: 0 for k in weights}
        for x, target in zip(scaled, one_hot(labels, 10)):
            g = gradient(weights, x[None], target[None])
            total = {k: total[k] + np.asarray(g[k]) ** 2 for k in weights}
        with tempfile.TemporaryDirectory() as folder:
            for program, tolerance in zip(PROGRAMS, (1e-4, 1e-6)):
                h = ours(program, "empirical-fisher", path, folder, images, labels, "threads=2")
                self.assertEqual(set(h), set(weights))
                for k in weights:
                    expected = total[k] / len(images)
                    norm = np.linalg.norm(h[k] - expected) / np.linalg.norm(expected)
                    self.assertLessEqual(norm, tolerance, k)


if __name__ == "__main__":
    unittest.main()
