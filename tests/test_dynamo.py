# SPDX-License-Identifier: Apache-2.0
"""What torch's newer exporter writes (testdata/dynamo_*.onnx) goes through
compress whole: every op runs and has a derivative, and onnxruntime opens the result.
"""
import json
import subprocess
import tempfile

import numpy as np
import onnxruntime as ort

from paths import PROGRAM, ROOT

RNG = np.random.default_rng(7)
INPUTS = {"cnn": ("x", RNG.standard_normal((96, 3, 16, 16)).astype(np.float32)),
          "transformer": ("ids", RNG.integers(0, 100, (96, 12))),
          "mixed": ("ids", RNG.integers(0, 100, (96, 12)))}


def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, (given, data) in INPUTS.items():
            path, small = f"{ROOT}/testdata/dynamo_{name}.onnx", f"{folder}/{name}.onnx"
            np.save(f"{folder}/x.npy", data[:64])
            original = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            output = original.get_outputs()[0].name
            done = subprocess.run([PROGRAM, "compress", path, "-o", small, "--calib",
                                   f"{folder}/x.npy", "--output", f"{output}=values",
                                   "--max-error", "0.01", "--json=-"],
                                  capture_output=True, text=True)
            assert done.returncode == 0, (name, done.stderr)
            report = json.loads(done.stdout)
            assert report["warnings"] == [], (name, report["warnings"])
            coded = [t for t in report["tensors"] if t["treatment"] == "coded"]
            assert coded and all(t["reason"] == "gauss-newton" for t in coded), (name, coded)
            opened = ort.InferenceSession(small, providers=["CPUExecutionProvider"])
            answers = [s.run(None, {given: data[64:]})[0] for s in (original, opened)]
            error = np.square(answers[0] - answers[1]).mean() / answers[0].var()
            assert 0 < error < 0.03, (name, error)
            assert report["ratio"] > 1.2, (name, report["ratio"])
            print(f"{name}: {len(coded)} tensors coded, ratio {report['ratio']:.2f}, error "
                  f"{error:.1e} on other inputs")


if __name__ == "__main__":
    main()
