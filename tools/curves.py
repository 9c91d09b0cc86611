#!/usr/bin/env python3
"""Ratio against accuracy: every quantizer at many sizes, measured in onnxruntime on the test images.

usage: curves.py [MODEL ...]      MODEL: lenet5, resnet20, resnet32 (default: all)

Each point is a file on disk (form function, everything counted) made by `onnxpress compress --step`.
Writes build/curves/MODEL.csv and MODEL.svg, and prints a Markdown table a model.
"""
import csv
import io
import subprocess
import sys

import numpy as np

from measure import DATA, ROOT, answers, divergence

OUT = ROOT / "build" / "curves"
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATIOS = {"lenet5": (8, 12, 16, 20, 24, 28, 32, 40, 50), "resnet20": (4, 5, 6, 7, 8, 9, 10, 12, 14),
          "resnet32": (4, 5, 6, 7, 8, 9, 10, 12, 14)}
METHODS = [("compensated", scope, True) for scope in ("model", "tensor")] + \
    [(method, scope, weighted) for method in ("uniform", "kmeans")
     for scope in ("model", "tensor") for weighted in (True, False)]


def mnist():
    test = np.load(DATA / "mnist_test.npz")
    return test["image"].astype(np.float32) / 255, test["label"]


def cifar():
    from PIL import Image  # here, since MNIST needs none
    test = np.load(DATA / "cifar10_test_jpeg.npz")
    stream, ends = test["jpeg"].tobytes(), [*test["offset"][1:], len(test["jpeg"])]
    images = np.stack([np.asarray(Image.open(io.BytesIO(stream[start:end]))).transpose(2, 0, 1)
                       for start, end in list(zip(test["offset"], ends))[:len(test["label"])]])
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (CIFAR_MEAN, CIFAR_STD))
    return (images.astype(np.float32) / 255 - mean) / std, test["label"]


MODELS = {"lenet5": ("lenet5_mnist.onnx", "mnist_calibration.npy", mnist, ()),
          **{name: (f"{name}.onnx", "cifar10_calibration.npy", cifar,
                    ("--mean", ",".join(map(str, CIFAR_MEAN)), "--std", ",".join(map(str, CIFAR_STD))))
             for name in ("resnet20", "resnet32")}}


def points(name):
    """Yields (method, scope, weighted, ratio, KL, top-1) of every point, and the original's top-1."""
    file, calibration, load, preprocessing = MODELS[name]
    images, labels = load()
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


def svg(name, top1, rows):
    """A plain SVG: top-1 over ratio, a line a method."""
    width, height, left, top, right, bottom = 760, 420, 60, 30, 250, 45
    colours = ("#c1121f", "#780000", "#0b6e4f", "#8fd3b6", "#1b4b91", "#9bbdf0", "#b5541c", "#f0b48f", "#7a2e8e", "#d3a6e0")
    most = 1.1 * max(RATIOS[name])
    low = top1 - (1.2 if name == "lenet5" else 5)
    rows = [r for r in rows if r[3] <= most and r[5] >= low]  # what falls out has failed
    above = 0.2 if name == "lenet5" else 0.8
    x = lambda ratio: left + (width - left - right) * ratio / most
    y = lambda accuracy: top + (height - top - bottom) * (1 - (accuracy - low) / (top1 + above - low))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="18" font-size="14">{name}: top-1 (%) against the ratio of real '
             f'bytes</text>']
    for tick in range(0, int(most) + 1, max(1, round(most / 10))):
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 22}" text-anchor="middle">{tick}</text>'
                     f'<path d="M{x(tick):.1f} {top}V{height - bottom}" stroke="#eee"/>')
    for i in range(6):
        value = low + (top1 + above - low) * i / 5
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
                     f'<path d="M{left} {y(value):.1f}H{width - right}" stroke="#eee"/>')
    parts.append(f'<path d="M{left} {y(top1):.1f}H{width - right}" stroke="#444" stroke-dasharray="4 3"/>'
                 f'<text x="{width - right + 8}" y="{y(top1) + 4:.1f}">original {top1:.2f}</text>')
    for colour, key, place in zip(colours, METHODS, range(len(METHODS))):
        line = sorted((r for r in rows if r[:3] == key), key=lambda r: r[3])
        if not line:
            continue
        parts.append('<path fill="none" stroke-width="2" stroke="%s" d="M%s"/>' % (
            colour, "L".join(f"{x(r[3]):.1f} {y(r[5]):.1f}" for r in line)))
        parts.extend(f'<circle cx="{x(r[3]):.1f}" cy="{y(r[5]):.1f}" r="2.5" fill="{colour}"/>' for r in line)
        parts.append(f'<text x="{width - right + 8}" y="{top + 90 + 18 * place}" fill="{colour}">'
                     f'{label(key)}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">ratio</text>'
                 '</svg>\n')
    return "".join(parts)


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
        (OUT / f"{name}.svg").write_text(svg(name, top1, rows))
        print(f"\n{name} (original {top1:.2f} %): KL in nats, top-1 in % at each ratio of real bytes\n")
        print("| method | " + " | ".join(map(str, RATIOS[name])) + " |\n|" + "---|" * (len(RATIOS[name]) + 1))
        for key in METHODS:
            cells = {min(RATIOS[name], key=lambda t: abs(t - r[3])): f"{r[4]:.4f}, {r[5]:.2f}"
                     for r in rows if r[:3] == key}
            print(f"| {label(key)} | " + " | ".join(cells.get(r, "–") for r in RATIOS[name]) + " |")


if __name__ == "__main__":
    main()
