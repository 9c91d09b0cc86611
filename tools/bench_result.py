#!/usr/bin/env python3
"""Models at default settings: size, accuracy, load and inference in whatever onnxruntime runs this.

usage: bench_result.py MODEL ...      MODEL: lenet5, resnet20, resnet32
"""
import subprocess
import sys

import numpy as np
import onnxruntime as ort

from datasets import MODELS, prepared, test
from measure import DATA, ROOT, answers, divergence, interleaved, load_times

SMALL = ROOT / "build" / "bench.onnx"


def main():
    for name in sys.argv[1:]:
        file, calibration, data, preprocessing = MODELS[name]
        model = DATA / file
        subprocess.run([ROOT / "build" / "onnxpress", "compress", model, "-o", SMALL, "--calib",
                        DATA / calibration, *preprocessing, "--quiet"], check=True)
        images, labels = test(data)
        images = prepared(data, images)
        before, after = answers(model, images), answers(SMALL, images)
        size, small = model.stat().st_size, SMALL.stat().st_size
        loads = load_times(model, SMALL)
        first, second, ratio = interleaved(model, SMALL, images[:500], runs=15)
        print(f"onnxruntime {ort.__version__}: {name} {size} -> {small} bytes, ratio {size / small:.2f}; "
              f"top-1 {100 * np.mean(before.argmax(1) == labels):.2f} -> "
              f"{100 * np.mean(after.argmax(1) == labels):.2f} %; "
              f"KL {divergence(before, after):.5f}; load {loads[0]:.3f} -> {loads[1]:.3f} s; "
              f"inference of 500 images {1e3 * first:.1f} -> {1e3 * second:.1f} ms, "
              f"ratio {ratio:.3f} (median of pairs)", flush=True)


main()
