#!/usr/bin/env python3
"""The pruned, retrained and compressed networks of testdata/ hold what the project promises beside the
paper's Table 1, in bytes of a file that onnxruntime opens."""
import sys

import numpy as np

from paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import datasets  # noqa: E402  (found through the line above)
import measure  # noqa: E402

# model: file, least ratio of real bytes, least correct answers of 10,000
PROMISED = {"lenet5": ("lenet5_pruned_small.onnx", 133, 9930),
            "resnet32": ("resnet32_pruned_small.onnx", 20, 8895)}


def main():
    kept = True
    for name, (file, least_ratio, least_correct) in PROMISED.items():
        original, _, data, _ = datasets.MODELS[name]
        image, label = datasets.test(data)
        answers = measure.answers(ROOT / "testdata" / file, datasets.prepared(data, image))
        correct = int((answers.argmax(1) == label).sum())
        ratio = (ROOT / "testdata" / original).stat().st_size / (ROOT / "testdata" / file).stat().st_size
        print(f"{file}: {ratio:.2f} times smaller, {correct / 100:.2f} %")
        kept &= ratio >= least_ratio and correct >= least_correct
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
