# SPDX-License-Identifier: Apache-2.0
"""The ONNX project's own node tests, run by the executor: inputs and outputs that define each op.

Models with an op that has no row, or with types that the executor does not hold, are skipped:
conformance_skipped.txt lists each with its reason, and a case that is skipped for another reason, or
passes though it is listed, is a failure.

usage: test_conformance.py [WORD | --write]   (WORD: only names with it; --write: the list anew)
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

LEAST_PASSED = 1560  # so that skipping everything is no success
LIST = pathlib.Path(__file__).with_name("conformance_skipped.txt")
# Where we answer otherwise, on purpose.
OUTSIDE = {name: "random: the numbers drawn are our own" for name in (
    "test_bernoulli", "test_bernoulli_expanded", "test_bernoulli_double",
    "test_bernoulli_double_expanded", "test_bernoulli_seed", "test_bernoulli_seed_expanded")}
OUTSIDE |= {name: "the fractional length stands for length_resized, where onnxruntime and we take the integer"
            for name in ("test_resize_downsample_scales_linear_align_corners",
                         "test_resize_downsample_scales_cubic_align_corners")}


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
    write = sys.argv[1:] == ["--write"]
    word = sys.argv[1] if len(sys.argv) > 1 and not write else ""
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
    skipped += [f"{name}: {why}" for name, why in OUTSIDE.items() if word in name]
    print(*(f"failed {line}" for line in failed), sep="\n")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1:], done.stderr)
    assert not failed
    assert word or len(passed) >= LEAST_PASSED
    if write:
        LIST.write_text("".join(f"{line}\n" for line in sorted(skipped)))
    listed = {line for line in LIST.read_text().splitlines() if word in line.split(":")[0]}
    new, gone = sorted(set(skipped) - listed), sorted(listed - set(skipped))
    print(*(f"not listed: {line}" for line in new), sep="\n")
    print(*(f"listed, but not so: {line}" for line in gone), sep="\n")
    assert not new and not gone, "test_conformance.py --write lists anew what is skipped"


if __name__ == "__main__":
    main()
