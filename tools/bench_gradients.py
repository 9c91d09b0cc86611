#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times gradients of MiniLM-L6's graph by all its weights, ours against PyTorch's: same graph, sentences, threads.

    bench_gradients.py RUN_GRADIENTS [--torch-python PYTHON] [--threads 2] [--sentences 64] [--repeat 3]

RUN_GRADIENTS is the test driver of that name; the model is that of tools/fetch-models. The loss is half the
sum of squares of the outputs. PyTorch (in PYTHON, which needs torch and numpy) runs the same nodes one by
one and differentiates what it did, in the fastest batch size, found first. Both are the seconds of the
computation alone, load and start left out. Runs are interleaved; the best of each is taken. The gradients
must agree.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from bench_worker import in_turns

# Of each tensor's norm: both sides compute in float32.
AGREE = 1e-3
# Of the largest norm. What is less is rounding alone: a softmax does not see the keys' biases.
ROUNDING = 1e-7
BATCHES = (8, 16, 32, 64)


def torch_worker(folder, threads):
    """Answers each line "go" on stdin with the seconds and processor seconds of one computation."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    types = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
    nodes, inputs, outputs = json.load(open(f"{folder}/graph.json"))
    stored = {k: torch.from_numpy(v) for k, v in np.load(f"{folder}/weights.npz").items()}
    weights = {k: v.requires_grad_() for k, v in stored.items() if v.is_floating_point()}
    data = np.load(f"{folder}/data.npz")
    data = {k: torch.from_numpy(data[k]) for k in inputs}

    def reshape(x, shape):
        return x.reshape([x.shape[k] if n == 0 else n for k, n in enumerate(shape.tolist())])

    def unsqueeze(x, axes):
        for axis in sorted(axes):
            x = x.unsqueeze(axis)
        return x

    def take(x, index, axis):
        if axis == 0 and x.is_floating_point():
            return torch.nn.functional.embedding(index, x)
        return x[index.item()] if index.dim() == 0 else x.index_select(axis, index)

    def cut(x, start, end, axes, step):
        for s, e, axis, by in zip(*(v.tolist() for v in (start, end, axes, step))):
            x = x[(slice(None),) * axis + (slice(s, e, by),)]
        return x

    run = {"Add": lambda x, a: x[0] + x[1], "Sub": lambda x, a: x[0] - x[1],
           "Mul": lambda x, a: x[0] * x[1], "Div": lambda x, a: x[0] / x[1],
           "Pow": lambda x, a: x[0] ** x[1], "Sqrt": lambda x, a: x[0].sqrt(),
           "Erf": lambda x, a: x[0].erf(), "MatMul": lambda x, a: x[0] @ x[1],
           "Softmax": lambda x, a: x[0].softmax(a["axis"]), "Cast": lambda x, a: x[0].to(types[a["to"]]),
           "ReduceMean": lambda x, a: x[0].mean(a["axes"], bool(a.get("keepdims", 1))),
           "Transpose": lambda x, a: x[0].permute(a["perm"]), "Reshape": lambda x, a: reshape(*x),
           "Concat": lambda x, a: torch.cat(x, a["axis"]), "Shape": lambda x, a: torch.tensor(x[0].shape),
           "Unsqueeze": lambda x, a: unsqueeze(x[0], a["axes"]), "Slice": lambda x, a: cut(*x),
           "Gather": lambda x, a: take(*x, a.get("axis", 0))}

    def forward(batch):
        values = dict(stored) | batch
        for op, reads, makes, attributes in nodes:
            values[makes] = run[op]([values[name] for name in reads], attributes)
        return [values[name] for name in outputs]

    def gradients(size):
        start, used = time.perf_counter(), time.process_time()
        for w in weights.values():
            w.grad = None
        for first in range(0, len(data[inputs[0]]), size):
            made = forward({k: v[first:first + size] for k, v in data.items()})
            sum((y * y).sum() / 2 for y in made).backward()
        return time.perf_counter() - start, time.process_time() - used

    gradients(BATCHES[0])  # wakes the threads
    best = min(BATCHES, key=lambda size: gradients(size)[0])
    print(json.dumps({"torch": torch.__version__, "batch": best}), flush=True)
    for _ in sys.stdin:
        print(*gradients(best), flush=True)
        np.savez(f"{folder}/torch.npz", **{k: w.grad.numpy() for k, w in weights.items() if w.grad is not None})


def write_graph(path, folder):
    """Nodes as [op, inputs, output, attributes], and all that is stored."""
    import numpy as np
    import onnx
    graph, nodes = onnx.load(path).graph, []
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            stored[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
        else:
            nodes.append([node.op_type, list(node.input), node.output[0], attributes])
    inputs = [i.name for i in graph.input if i.name not in stored]
    with open(f"{folder}/graph.json", "w") as out:
        json.dump([nodes, inputs, [o.name for o in graph.output]], out)
    np.savez(f"{folder}/weights.npz", **stored)


def our_run(command):
    """Seconds that it prints, and processor seconds of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    seconds = float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--torch-python", default="/usr/bin/python3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    import numpy as np
    import realmodels_data as data
    model = data.MODELS / "minilm.onnx"
    with tempfile.TemporaryDirectory() as folder:
        write_graph(model, folder)
        np.savez(f"{folder}/data.npz", **data.minilm_make("calibration", options.sentences)[0])
        worker = subprocess.Popen(
            [options.torch_python, os.path.abspath(__file__), "--worker", folder, str(options.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        about = json.loads(worker.stdout.readline())
        command = [options.program, model, f"{folder}/data.npz", f"{folder}/ours.npz", str(options.threads)]
        (seconds, used), (torch_seconds, torch_used) = in_turns(lambda: our_run(command), worker, options.repeat)
        with np.load(f"{folder}/ours.npz") as a, np.load(f"{folder}/torch.npz") as b:
            least = ROUNDING * max(np.linalg.norm(b[k]) for k in b.files)
            apart = max(np.linalg.norm(a[k].astype(float) - b[k]) / np.linalg.norm(b[k])
                        for k in b.files if np.linalg.norm(b[k]) > least)
    print(f"gradients of MiniLM-L6, {options.sentences} sentences of 128 tokens, {options.threads} threads, "
          f"best of {options.repeat}:")
    print(f"  ours            {seconds:8.2f} s, {used:8.2f} s of processors (with load)")
    print(f"  PyTorch {about['torch']:8}{torch_seconds:8.2f} s, {torch_used:8.2f} s of processors   "
          f"(batches of {about['batch']})")
    print(f"  ours has {torch_seconds / seconds:.2f} times PyTorch's speed; gradients differ by at most "
          f"{apart:.1e} of a tensor's norm", flush=True)
    return 0 if apart <= AGREE else "the gradients disagree"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        torch_worker(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
