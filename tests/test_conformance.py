# SPDX-License-Identifier: Apache-2.0
"""The ONNX project's own node tests, run by the executor: inputs and outputs that define each op.

Models with an op that has no row, or with types that the executor does not hold, are skipped.

usage: test_conformance.py [WORD]   (WORD: only names with it)
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import onnx
from onnx import numpy_helper

from paths import driver

LEAST_PASSED = 1200  # so that skipping everything is no success
# name: why we answer otherwise, on purpose
FRACTION = "the fractional length stands for length_resized, where onnxruntime and we take the integer"
OUTSIDE = {"test_resize_downsample_scales_linear_align_corners": FRACTION,
           "test_resize_downsample_scales_cubic_align_corners": FRACTION}


def write_case(case, folder):
    folder.mkdir()
    onnx.save(case.model, folder / "model.onnx")
    inputs, outputs = case.data_sets[0]
    for kind, values, given in (("input", inputs, case.model.graph.input),
                                ("output", outputs, case.model.graph.output)):
        for k, (value, info) in enumerate(zip(values, given)):
            tensor = value
            if not isinstance(value, onnx.TensorProto):
                try:
                    tensor = numpy_helper.from_array(value, info.name)
                except (TypeError, ValueError, NotImplementedError, AttributeError):
                    return False  # a sequence or a map: no tensor
            (folder / f"{kind}_{k}.pb").write_bytes(tensor.SerializeToString())
    return True


def main():
    run_op = driver("run_op")
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases
    passed, skipped, failed = [], [], []
    with tempfile.TemporaryDirectory() as top:
        folders = []
        for case in collect_testcases(None):
            if word not in case.name:
                continue
            folder = pathlib.Path(top) / case.name
            if write_case(case, folder):
                folders.append(folder)
            else:
                skipped.append(f"{case.name}: no tensors")
        done = subprocess.run([run_op, *folders], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        verdict, name = line.split(" ", 1)
        {"passed": passed, "skipped": skipped, "failed": failed}[verdict].append(name)
    failed = [line for line in failed if line.split(":")[0] not in OUTSIDE]
    print(*(f"skipped {line}" for line in skipped), sep="\n")
    print(*(f"failed {line}" for line in failed), sep="\n")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1:], done.stderr)
    assert not failed
    assert word or len(passed) >= LEAST_PASSED


if __name__ == "__main__":
    main()
