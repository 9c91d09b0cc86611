#!/usr/bin/env python3
"""Ratio against accuracy: every quantizer at many sizes, measured in onnxruntime on the test images.

usage: curves.py [MODEL ...]      MODEL: lenet5, resnet20, resnet32 (default: all)

Each point is a file on disk (form function, everything counted) made by `onnxpress compress --step`.
Writes build/curves/MODEL.csv, MODEL.svg and MODEL.png, and prints a Markdown table a model.
"""
import csv
import subprocess
import sys

import numpy as np

from datasets import MODELS, prepared, test
from figure import draw
from measure import DATA, ROOT, answers, divergence

OUT = ROOT / "build" / "curves"
RATIOS = {"lenet5": (8, 12, 16, 20, 24, 28, 32, 40, 50), "resnet20": (4, 5, 6, 7, 8, 9, 10, 12, 14),
          "resnet32": (4, 5, 6, 7, 8, 9, 10, 12, 14)}
METHODS = [("compensated", scope, True) for scope in ("model", "tensor")] + \
    [(method, scope, weighted) for method in ("uniform", "kmeans")
     for scope in ("model", "tensor") for weighted in (True, False)]


def points(name):
    """Yields (method, scope, weighted, ratio, KL, top-1) of every point, and the original's top-1."""
    file, calibration, data, preprocessing = MODELS[name]
    images, labels = test(data)
    images = prepared(data, images)
    model, small, hessian = DATA / file, OUT / f"{name}.onnx", OUT / f"{name}.hessian.npz"
    program = ROOT / "build" / "onnxpress"
    subprocess.run([program, "hessian", model, "--calib", DATA / calibration, *preprocessing, "-o",
                    hessian, "--quiet"], check=True)
    before = answers(model, images)
    yield 100 * np.mean(before.argmax(1) == labels)
    for method, scope, weighted in METHODS:
        for ratio in RATIOS[name]:
            done = subprocess.run(
                [program, "compress", model, "-o", small, "--ratio", str(ratio), "--method", method,
                 "--scope", scope, "--hessian", hessian, "--quiet",
                 *([] if weighted else ["--unweighted"]),
                 *(["--calib", DATA / calibration, *preprocessing] if method == "compensated" else [])],
                capture_output=True, text=True)
            if done.returncode:
                print(f"{name} {method} {scope} ratio {ratio}: {done.stderr.strip()}", file=sys.stderr)
                continue
            after = answers(small, images)
            yield (method, scope, weighted, model.stat().st_size / small.stat().st_size,
                   divergence(before, after),
                   100 * np.mean(after.argmax(1) == labels))


def label(row):
    return f"{row[0]}, {'a step a tensor' if row[1] == 'tensor' else 'one step'}" + \
        ("" if row[2] else ", unweighted")


def figure(name, top1, rows):
    """Top-1 over the ratio, a line a method; what falls out of the frame has failed."""
    span = 1.2 if name == "lenet5" else 5
    draw(OUT / name, f"{name}: top-1 (%) against the ratio of real bytes", "ratio", "top-1 (%)",
         [(label(key), [(r[3], r[5]) for r in rows if r[:3] == key]) for key in METHODS],
         (top1 - span, top1 + span / 6), ("original", top1))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        found = points(name)
        top1 = next(found)
        rows = list(found)
        with open(OUT / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("method", "scope", "weighted", "ratio", "kl", "top1"))
            writer.writerows(rows)
        figure(name, top1, rows)
        print(f"\n{name} (original {top1:.2f} %): KL in nats, top-1 in % at each ratio of real bytes\n")
        print("| method | " + " | ".join(map(str, RATIOS[name])) + " |\n|" + "---|" * (len(RATIOS[name]) + 1))
        for key in METHODS:
            cells = {min(RATIOS[name], key=lambda t: abs(t - r[3])): f"{r[4]:.4f}, {r[5]:.2f}"
                     for r in rows if r[:3] == key}
            print(f"| {label(key)} | " + " | ".join(cells.get(r, "–") for r in RATIOS[name]) + " |")


if __name__ == "__main__":
    main()
