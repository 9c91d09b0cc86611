#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times our exact Gauss-Newton diagonal of LeNet-5 against PyTorch's: same images, same threads.

    bench_importance.py PROGRAM [--torch-python PYTHON] [--threads 2] [--samples 1000] [--repeat 3]

PROGRAM is onnxpress (or the test driver run_importance). PyTorch runs in PYTHON, which needs torch
(2.x, or 1.13 with functorch) and numpy; this script needs numpy and onnx. Ours is the wall time of
the whole process (start, load, compute, write); PyTorch's is the computation alone, by the fastest
of its per-sample-gradient formulations and chunk sizes, found first. Runs are interleaved; the best
of each is taken. The two diagonals must agree.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = os.path.join(ROOT, "testdata", "lenet5_mnist.onnx")
IMAGES = os.path.join(ROOT, "testdata", "mnist_calibration.npy")
# Of each tensor's norm: both sides compute in float32.
AGREE = 1e-4


def torch_worker(folder, threads):
    """Answers each line "go" on stdin with the seconds of one computation."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    try:
        from torch.func import grad, vjp, vmap
    except ImportError:
        from functorch import grad, vjp, vmap

    torch.set_num_threads(threads)
    weights = {k: torch.from_numpy(v) for k, v in np.load(f"{folder}/weights.npz").items()}
    images = torch.from_numpy(np.load(f"{folder}/images.npy").astype(np.float32) / 255)

    def forward(w, x):
        x = F.max_pool2d(F.conv2d(x, w["0.weight"], w["0.bias"]), 2)
        x = F.max_pool2d(F.conv2d(x, w["2.weight"], w["2.bias"]), 2)
        x = F.relu(F.linear(x.flatten(1), w["5.weight"], w["5.bias"]))
        return F.linear(x, w["7.weight"], w["7.bias"])

    def columns(logits):
        p = torch.softmax(logits, -1)
        eye = torch.eye(p.shape[-1])
        return torch.sqrt(p)[..., None] * (eye - p[..., None, :])  # [..., column, class]

    def by_vjp(x):
        """All columns of a sample by one vmap of its vjp, samples by another."""
        def one(x):
            logits, pull = vjp(lambda w: forward(w, x[None])[0], weights)
            return {k: (g * g).sum(0) for k, g in vmap(pull)(columns(logits))[0].items()}
        return {k: g.sum(0) for k, g in vmap(one)(x).items()}

    def by_grad(x):
        """A column at a time, samples by vmap of grad."""
        v = columns(forward(weights, x))
        slope = vmap(grad(lambda w, x, v: (forward(w, x[None])[0] * v).sum()), (None, 0, 0))
        total = None
        for c in range(v.shape[1]):
            square = {k: (g * g).sum(0) for k, g in slope(weights, x, v[:, c]).items()}
            total = square if total is None else {k: total[k] + square[k] for k in total}
        return total

    def run(way, chunk, x):
        start, total = time.perf_counter(), None
        for part in x.split(chunk):
            h = way(part)
            total = h if total is None else {k: total[k] + h[k] for k in total}
        return time.perf_counter() - start, {k: g / len(x) for k, g in total.items()}

    trial = images[:64]
    choices = [(way, chunk) for way in (by_vjp, by_grad) for chunk in (16, 64)]
    run(by_vjp, 16, trial[:16])  # wakes the threads
    best = min(choices, key=lambda c: run(*c, trial)[0])
    print(json.dumps({"torch": torch.__version__, "way": best[0].__name__, "chunk": best[1]}),
          flush=True)
    for line in sys.stdin:
        seconds, h = run(*best, images)
        np.savez(f"{folder}/torch.npz", **{k: g.numpy() for k, g in h.items()})
        print(seconds, flush=True)


def our_run(program, folder, threads):
    out = f"{folder}/ours.npz"
    if os.path.basename(program).startswith("run_importance"):
        command = [program, MODEL, f"{folder}/images.npy", out, f"threads={threads}"]
    else:
        command = [program, "hessian", MODEL, "--calib", f"{folder}/images.npy", "-o", out,
                   "--threads", str(threads), "--quiet"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--torch-python", default="/usr/bin/python3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write the figures here, too")
    options = parser.parse_args()
    import numpy as np
    import onnx
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/images.npy", np.load(IMAGES)[:options.samples])
        np.savez(f"{folder}/weights.npz", **{
            t.name: numpy_helper.to_array(t) for t in onnx.load(MODEL).graph.initializer})
        worker = subprocess.Popen(
            [options.torch_python, os.path.abspath(__file__), "--worker", folder,
             str(options.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        about = json.loads(worker.stdout.readline())
        ours, theirs = [], []
        for _ in range(options.repeat):
            ours.append(our_run(options.program, folder, options.threads))
            worker.stdin.write("go\n")
            worker.stdin.flush()
            theirs.append(float(worker.stdout.readline()))
        worker.stdin.close()
        worker.wait()
        with np.load(f"{folder}/ours.npz") as a, np.load(f"{folder}/torch.npz") as b:
            apart = {k: float(np.linalg.norm(a[k].astype(float) - b[k]) / np.linalg.norm(b[k]))
                     for k in b.files}
    figures = {"samples": options.samples, "threads": options.threads, "torch": about["torch"],
               "torch_way": f"{about['way']}, chunks of {about['chunk']}",
               "ours_seconds": min(ours), "torch_seconds": min(theirs),
               "times_faster": min(theirs) / min(ours), "largest_difference": max(apart.values())}
    print(f"exact Gauss-Newton diagonal of LeNet-5, {options.samples} images, "
          f"{options.threads} threads, best of {options.repeat}:")
    print(f"  ours            {min(ours):8.2f} s   (whole process)")
    print(f"  PyTorch {about['torch']:8}{min(theirs):8.2f} s   ({figures['torch_way']})")
    print(f"  {figures['times_faster']:.1f} times faster; diagonals differ by at most "
          f"{figures['largest_difference']:.1e} of a tensor's norm")
    if options.json:
        with open(options.json, "w") as out:
            json.dump(figures, out, indent=1)
    return 0 if figures["largest_difference"] <= AGREE else "the diagonals disagree"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        torch_worker(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
