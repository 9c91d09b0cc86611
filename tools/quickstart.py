#!/usr/bin/env python3
"""Compress LeNet-5 in every layout and measure the results in onnxruntime."""
import subprocess
import sys

import numpy as np
import onnxruntime as ort

from measure import DATA, ROOT, answers, divergence, interleaved, load_times

MODEL = DATA / "lenet5_mnist.onnx"
OUT = ROOT / "build" / "quickstart"
LAYOUTS = (("function", "never"), ("function", "always"), ("lookup", "never"), ("lookup", "always"))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    test = np.load(DATA / "mnist_test.npz")
    images, labels = test["image"].astype(np.float32) / 255, test["label"]
    before = answers(MODEL, images)
    size = MODEL.stat().st_size
    print(f"onnxruntime {ort.__version__}, nothing registered, 10,000 test images\n")
    print(f"{'form':9} {'sidecar':8} {'bytes':>8} {'ratio':>6} {'top-1 %':>8} {'KL':>8} "
          f"{'load s':>7} {'inference ms':>13}")
    rows = []
    for form, sidecar in LAYOUTS:
        small = OUT / f"lenet5_{form}_{sidecar}.onnx"
        subprocess.run([ROOT / "build" / "onnxpress", "compress", MODEL, "-o", small, "--calib",
                        DATA / "mnist_calibration.npy", "--form", form, "--sidecar", sidecar,
                        "--quiet"], check=True)
        after = answers(small, images)
        data = small.with_name(small.name + ".data")
        total = small.stat().st_size + (data.stat().st_size if data.exists() else 0)
        loads = load_times(MODEL, small)
        first, second, ratio = interleaved(MODEL, small, images[:2000], runs=9)
        if not rows:
            print(f"{'original':18} {size:8d} {1:6.2f} {100 * np.mean(before.argmax(1) == labels):8.2f} "
                  f"{0:8.5f} {loads[0]:7.3f} {1e3 * first:13.1f}")
        print(f"{form:9} {sidecar:8} {total:8d} {size / total:6.2f} "
              f"{100 * np.mean(after.argmax(1) == labels):8.2f} {divergence(before, after):8.5f} "
              f"{loads[1]:7.3f} {1e3 * second:13.1f} ({ratio:.2f} of the original's)")
        rows.append(size / total)
    print(f"\nwritten to {OUT.relative_to(ROOT)}/; for your own model: build/onnxpress compress --help")
    if rows[0] < 20:
        sys.exit(f"the function form is only {rows[0]:.2f} times smaller: 20 is promised")


main()
