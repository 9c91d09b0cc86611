# SPDX-License-Identifier: Apache-2.0
"""The exact Gauss-Newton diagonal in float64 by JAX: a third party for tests.

Nothing here is shared with the C code: the graph is run by a few lines over jax.numpy, derivatives
are JAX's, and the loss's Hessian is applied as it is defined (no square root of it).
"""
import jax
import jax.numpy as jnp
import numpy as np
from onnx import helper, numpy_helper

jax.config.update("jax_enable_x64", True)


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def conv(a, x, w, b=None):
    pads = a.get("pads", [0] * (2 * (w.ndim - 2)))
    half = len(pads) // 2
    y = jax.lax.conv_general_dilated(
        x, w, a.get("strides", [1] * half), list(zip(pads[:half], pads[half:])),
        rhs_dilation=a.get("dilations", [1] * half), feature_group_count=a.get("group", 1))
    return y if b is None else y + b.reshape((1, -1) + (1,) * half)


def max_pool(a, x):
    kernel = a["kernel_shape"]
    half = len(kernel)
    pads = a.get("pads", [0] * (2 * half))
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 1) + tuple(kernel),
        (1, 1) + tuple(a.get("strides", [1] * half)),
        ((0, 0), (0, 0)) + tuple(zip(pads[:half], pads[half:])))


def gemm(a, x, w, c=None):
    x = x.T if a.get("transA", 0) else x
    w = w.T if a.get("transB", 0) else w
    y = a.get("alpha", 1.0) * (x @ w)
    return y if c is None else y + a.get("beta", 1.0) * c


def batch_norm(a, x, scale, bias, mean, var):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    inverse = 1 / jnp.sqrt(var + np.float32(a.get("epsilon", 1e-5)).astype(np.float64))
    return (x - mean.reshape(shape)) * (scale * inverse).reshape(shape) + bias.reshape(shape)


def reshape(a, x, shape):
    dims = [x.shape[k] if d == 0 else int(d) for k, d in enumerate(np.asarray(shape))]
    return x.reshape(dims)


def cut(a, x, starts, ends, axes, steps):
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        index[axis] = slice(int(start), int(end), int(step))
    return x[tuple(index)]


def pad(a, x, pads, value=0.0):
    return jnp.pad(x, [(int(b), int(e)) for b, e in zip(pads[:x.ndim], pads[x.ndim:])],
                   constant_values=float(value))


# Integers stay in numpy: shapes must be known when JAX traces.
OPS = {
    "Constant": lambda a: numpy_helper.to_array(a["value"]),
    "ConstantOfShape": lambda a, s: np.full(
        s, numpy_helper.to_array(a["value"]).item(), numpy_helper.to_array(a["value"]).dtype),
    "Shape": lambda a, x: np.array(x.shape, dtype=np.int64),
    "Gather": lambda a, x, i: x.take(i, axis=a.get("axis", 0)),
    "Concat": lambda a, *x: np.concatenate(x, axis=a["axis"]),
    "Transpose": lambda a, x: x.transpose(a["perm"]),
    "Cast": lambda a, x: x.astype(helper.tensor_dtype_to_np_dtype(a["to"])),
    "Slice": cut,
    "Pad": pad,
    "ReduceMean": lambda a, x: x.mean(axis=tuple(a["axes"]), keepdims=bool(a.get("keepdims", 1))),
    "Sub": lambda a, x, y: x - y,
    "Conv": conv,
    "MaxPool": max_pool,
    "Gemm": gemm,
    "BatchNormalization": batch_norm,
    "Reshape": reshape,
    "MatMul": lambda a, x, y: x @ y,
    "Add": lambda a, x, y: x + y,
    "Mul": lambda a, x, y: x * y,
    "Relu": lambda a, x: jnp.maximum(x, 0),
    "Sigmoid": lambda a, x: jax.nn.sigmoid(x),
    "Tanh": lambda a, x: jnp.tanh(x),
    "Softmax": lambda a, x: jax.nn.softmax(x, axis=a.get("axis", -1)),
    "GlobalAveragePool": lambda a, x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True),
    "Flatten": lambda a, x: x.reshape(int(np.prod(x.shape[:a.get("axis", 1)])), -1),
    "Identity": lambda a, x: x,
}


def weights_of(model):
    """Float initializers by name, in float64."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {k: v.astype(np.float64) for k, v in arrays.items() if v.dtype.kind == "f"}


def run(model, weights, inputs):
    """The outputs for weights and inputs by name."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values.update(weights)
    values.update(inputs)
    for node in model.graph.node:
        arguments = [values[name] if name else None for name in node.input]
        values[node.output[0]] = OPS[node.op_type](attributes(node), *arguments)
    return [values[o.name] for o in model.graph.output]


def rows_of(kind, y):
    """One sample's output as [rows, classes]."""
    if kind in ("bernoulli", "values"):
        return y.reshape(-1, 1)
    if y.ndim == 4:
        return jnp.moveaxis(y, 1, -1).reshape(-1, y.shape[1])
    return y.reshape(-1, y.shape[-1])


def quadratic(kind, y, j):
    """Diagonal of J'HJ summed over the rows: y is [rows, classes], j is [rows, classes, ...]."""
    p = jax.nn.softmax(y, axis=-1) if kind == "logits" else y
    p = p.reshape(p.shape + (1,) * (j.ndim - 2))
    if kind == "logits":
        mean = (p * j).sum(axis=1, keepdims=True)
        return (p * (j - mean) ** 2).sum(axis=(0, 1))
    if kind == "probabilities":
        return (j ** 2 / p).sum(axis=(0, 1))
    if kind == "bernoulli":
        return (j ** 2 / (p * (1 - p))).sum(axis=(0, 1))
    return (j ** 2).sum(axis=(0, 1))  # values of variance 1


def diagonal(model, kinds, samples):
    """{weight: mean over samples of the diagonal}; samples is {input: array of all samples}."""
    weights = weights_of(model)

    @jax.jit
    def one(w, x):
        def outputs(w):
            return [rows_of(k, y) for k, y in zip(kinds, run(model, w, x))]
        values, slopes = outputs(w), jax.jacrev(outputs)(w)
        return {name: sum(quadratic(k, y, j[name]) / y.shape[0]
                          for k, y, j in zip(kinds, values, slopes)) for name in w}

    count = len(next(iter(samples.values())))
    total = None
    for s in range(count):
        x = {name: jnp.asarray(a[s:s + 1], dtype=jnp.float64) for name, a in samples.items()}
        h = one(weights, x)
        total = h if total is None else {k: total[k] + h[k] for k in h}
    return {k: np.asarray(v) / count for k, v in total.items()}
