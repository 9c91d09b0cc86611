#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times an epoch of training, ours against PyTorch's: same data, batches, threads, and Adam.

    bench_training.py PROGRAM [MODEL …] [--torch-python PYTHON] [--threads 2] [--repeat 3] [--json FILE]

MODEL is lenet5 (60,000 images: the 10,000 test images of MNIST, six times; batches of 64) or resnet32
(4,096 test images of CIFAR-10; batches of 128); both unless said otherwise. PyTorch runs in PYTHON, which
needs torch and numpy. Ours is the wall time of the whole process (start, load, train, write); PyTorch's is
the loop alone, without augmentation either, by the fastest of its memory formats and Adams, found first.
Runs are interleaved; the best of each is taken. PyTorch's networks must answer as onnxruntime does.
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

# model: images (those of the test set, over and over), batch
RUNS = {"lenet5": (60000, 64), "resnet32": (4096, 128)}
AN_EPOCH = 50000


def torch_worker(folder, model, batch, threads):
    """Answers each line "go" on stdin with the seconds and processor seconds of an epoch."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    stored = [torch.from_numpy(w) for w in np.load(f"{folder}/weights.npz").values()]
    images = torch.from_numpy(np.load(f"{folder}/prepared.npy"))
    labels = torch.from_numpy(np.load(f"{folder}/labels.npy"))

    def lenet5(x, w):
        x = F.max_pool2d(F.conv2d(x, w[0], w[1]), 2)
        x = F.max_pool2d(F.conv2d(x, w[2], w[3]), 2)
        return F.linear(F.relu(F.linear(x.flatten(1), w[4], w[5])), w[6], w[7])

    def resnet32(x, w):
        x = F.relu(F.conv2d(x, w[2], w[3], padding=1))
        for k in range(4, len(w), 4):
            step = w[k].shape[0] // x.shape[1]
            y = F.relu(F.conv2d(x, w[k], w[k + 1], stride=step, padding=1))
            y = F.conv2d(y, w[k + 2], w[k + 3], padding=1)
            if step > 1:  # option A: every other pixel, and channels of zeros around
                more = (w[k].shape[0] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
            x = F.relu(y + x)
        return F.linear(x.mean((2, 3)), w[0], w[1])

    forward = {"lenet5": lenet5, "resnet32": resnet32}[model]
    with torch.no_grad():
        apart = (forward(images[:64], stored) - torch.from_numpy(np.load(f"{folder}/answers.npy"))).abs().max()
    assert apart < 1e-3, f"PyTorch's network is another one: answers differ by {apart}"

    def epoch(layout, fused, count):
        x = images[:count].to(memory_format=layout)
        w = [v.clone().to(memory_format=layout if v.dim() == 4 else torch.preserve_format).requires_grad_()
             for v in stored]
        adam = torch.optim.Adam(w, lr=1e-4, fused=fused)
        start, used = time.perf_counter(), time.process_time()
        for chosen in torch.randperm(count).split(batch):
            adam.zero_grad()
            F.cross_entropy(forward(x[chosen], w), labels[chosen]).backward()
            adam.step()
        return time.perf_counter() - start, time.process_time() - used

    layouts = {"plain": torch.contiguous_format, "channels last": torch.channels_last}
    ways = [(layout, fused) for layout in layouts for fused in (False, True)]
    epoch(layouts["plain"], True, 2 * batch)  # wakes the threads
    best = min(ways, key=lambda way: min(epoch(layouts[way[0]], way[1], 4 * batch)[0] for _ in range(3)))
    print(json.dumps({"torch": torch.__version__, "way": f"{best[0]}{', fused Adam' * best[1]}"}), flush=True)
    for _ in sys.stdin:
        print(*epoch(layouts[best[0]], best[1], len(images)), flush=True)


def our_run(command):
    """Seconds and processor seconds of the process."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(model, folder, options):
    import numpy as np
    import onnx
    import datasets
    import measure
    file, _, data, settings = datasets.MODELS[model]
    path, (count, batch) = str(measure.DATA / file), RUNS[model]
    image, label = datasets.test(data)
    chosen = np.arange(count) % len(image)
    for name, array in ("images", image[chosen]), ("labels", label[chosen]):
        np.save(f"{folder}/{name}.npy", array)
    prepared = datasets.prepared(data, image)
    np.save(f"{folder}/prepared.npy", prepared[chosen])
    np.save(f"{folder}/answers.npy", measure.answers(path, prepared[:64]))
    np.savez(f"{folder}/weights.npz", **{
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT})
    worker = subprocess.Popen(
        [options.torch_python, os.path.abspath(__file__), "--worker", folder, model, str(batch),
         str(options.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    about = json.loads(worker.stdout.readline())
    command = [options.program, "finetune", path, "-o", f"{folder}/out.onnx", "--calib", f"{folder}/images.npy",
               "--labels", f"{folder}/labels.npy", *settings, "--epochs", "1", "--batch", str(batch),
               "--rate", "0.0001", "--threads", str(options.threads), "--quiet"]
    (seconds, used), (torch_seconds, torch_used) = in_turns(lambda: our_run(command), worker, options.repeat)
    print(f"an epoch of {model}, {count:,} images, batches of {batch}, {options.threads} threads, "
          f"best of {options.repeat}:")
    print(f"  ours            {seconds:8.2f} s, {used:8.2f} s of processors   (whole process)")
    print(f"  PyTorch {about['torch']:8}{torch_seconds:8.2f} s, {torch_used:8.2f} s of processors   ({about['way']})")
    print(f"  ours takes {seconds / torch_seconds:.2f} times PyTorch's; {AN_EPOCH:,} images would take "
          f"{seconds * AN_EPOCH / count:.1f} s and {torch_seconds * AN_EPOCH / count:.1f} s", flush=True)
    return {"images": count, "batch": batch, "threads": options.threads, **about,
            "ours_seconds": seconds, "torch_seconds": torch_seconds, "times": seconds / torch_seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("models", nargs="*", default=list(RUNS), metavar="MODEL")
    parser.add_argument("--torch-python", default="/usr/bin/python3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write the figures here, too")
    options = parser.parse_intermixed_args()
    figures = {}
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            figures[model] = compare(model, folder, options)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(figures, out, indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        torch_worker(*sys.argv[2:4], *map(int, sys.argv[4:6]))
    else:
        main()
