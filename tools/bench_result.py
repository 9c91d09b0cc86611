#!/usr/bin/env python3
"""LeNet-5 at default settings: size, accuracy, load and inference in whatever onnxruntime runs this."""
import subprocess

import numpy as np
import onnxruntime as ort

from measure import DATA, ROOT, answers, divergence, interleaved, load_times

SMALL = ROOT / "build" / "bench.onnx"
MODEL = DATA / "lenet5_mnist.onnx"


def main():
    subprocess.run([ROOT / "build" / "onnxpress", "compress", MODEL, "-o", SMALL, "--calib",
                    DATA / "mnist_calibration.npy", "--quiet"], check=True)
    test = np.load(DATA / "mnist_test.npz")
    images, labels = test["image"].astype(np.float32) / 255, test["label"]
    before, after = answers(MODEL, images), answers(SMALL, images)
    size, small = MODEL.stat().st_size, SMALL.stat().st_size
    loads = load_times(MODEL, SMALL)
    first, second, ratio = interleaved(MODEL, SMALL, images[:2000])
    print(f"onnxruntime {ort.__version__}: LeNet-5 {size} -> {small} bytes, ratio {size / small:.2f}; "
          f"top-1 {100 * np.mean(before.argmax(1) == labels):.2f} -> "
          f"{100 * np.mean(after.argmax(1) == labels):.2f} %; "
          f"KL {divergence(before, after):.5f}; load {loads[0]:.3f} -> {loads[1]:.3f} s; "
          f"inference of 2,000 images {1e3 * first:.1f} -> {1e3 * second:.1f} ms, "
          f"ratio {ratio:.3f} (median of pairs)")


main()
