#!/usr/bin/env python3
"""Deployed models through compress: size, answers, task score, cost, as one table.

realmodels.py [--few] [--kept] [MODEL ...]. --few: a fifth of the calibration samples, for a quick
look; --kept: measure what the last run left in build/models/small.
"""
import argparse
import json
import os
import resource
import subprocess
import sys

import numpy as np
import onnxruntime as ort

import realmodels_data as data
from measure import load_times, session
from realmodels_data import MODELS, TABLE

# What is asked for beside the defaults.
GOALS = {"orientation": ("--max-kl", "0.0002"), "recognizer": ("--max-kl", "0.02"), "minilm": (),
         "silero": ("--max-kl", "0.0005"), "detector": ()}
PROGRAM = os.environ.get("ONNXPRESS", str(data.ROOT / "build" / "release" / "src" / "onnxpress"))


def answers(path, inputs, n):
    made = session(path)
    rank = {i.name: len(i.shape) for i in made.get_inputs()}
    batch_axis = {name: x.ndim == rank[name] for name, x in inputs.items()}
    samples = [data.sample(inputs, k, batch_axis) for k in range(n)]
    return [made.run(None, sample) for sample in samples], samples


def seconds(paths, samples, runs=5):
    """Least seconds of inference a sample, the models taking turns."""
    import time
    made, best = [session(path) for path in paths], [np.inf] * len(paths)
    for _ in range(runs):
        for k, one in enumerate(made):
            start = time.perf_counter()
            for sample in samples[:10]:
                one.run(None, sample)
            best[k] = min(best[k], (time.perf_counter() - start) / len(samples[:10]))
    return best


def distance(kind, before, after):
    """KL a row, or squared error over the variance; and the share of rows with the same answer."""
    p = np.concatenate([b.reshape(-1, b.shape[-1]) for b in before]).astype(np.float64)
    q = np.concatenate([a.reshape(-1, a.shape[-1]) for a in after]).astype(np.float64)
    if kind == "values":
        return np.mean((p - q) ** 2) / np.var(p), np.nan
    if kind == "bernoulli":
        p, q = np.stack([p, 1 - p], -1), np.clip(np.stack([q, 1 - q], -1), 1e-8, 1)
    if kind == "logits":
        p, q = [np.exp(x - x.max(1, keepdims=True)) for x in (p, q)]
        p, q = [x / x.sum(1, keepdims=True) for x in (p, q)]
    terms = np.where(p > 0, p * np.log(np.maximum(p, 1e-38) / np.maximum(q, 1e-38)), 0)
    return terms.sum(-1).mean(), np.mean(p.argmax(-1) == q.argmax(-1))


def compress(name, calibration, small):
    report = small.with_suffix(".json")
    command = [PROGRAM, "compress", MODELS / f"{name}.onnx", "-o", small, "--calib", calibration,
               "--quiet", "--json", report, *GOALS[name]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    made = json.loads(report.read_text())
    made["cpu"] = cpu
    report.write_text(json.dumps(made))


def row(name, options):
    _, score, kind, n_calibration, n_test = TABLE[name]
    small = MODELS / "small" / f"{name}.onnx"
    small.parent.mkdir(exist_ok=True)
    if not options.kept:
        n = n_calibration // 5 if options.few else n_calibration
        compress(name, data.write(name, "calibration", n)[0], small)
    made = json.loads(small.with_suffix(".json").read_text())
    _, inputs, truth = data.write(name, "test", n_test)
    original = MODELS / f"{name}.onnx"
    before, samples = answers(original, inputs, n_test)
    after, _ = answers(small, inputs, n_test)
    before, after = [b[0] for b in before], [a[0] for a in after]
    far, same = distance(kind, before, after)
    was, unit = score(before, truth)
    if name == "detector":
        was, truth = 100.0, [data.boxes(b[0]) for b in before]
    now, unit = score(after, truth)
    notes = "" if np.isnan(same) else f"{100 * same:.2f} % equal"
    if name == "minilm":
        cosine = np.sum(data.pooled(before, truth) * data.pooled(after, truth), 1)
        notes = f"cosine {cosine.mean():.5f}"
    loads = load_times(original, small, runs=3)
    runs = seconds((original, small), samples)
    size = original.stat().st_size, small.stat().st_size
    print(f"{name:12} {size[0]:>9} {size[1]:>8} {size[0] / size[1]:6.2f} "
          f"{'error' if kind == 'values' else 'KL':>5} {far:8.5f} {notes:16} "
          f"{was:7.4g} -> {now:7.4g} {unit:10} {made['cpu']:7.1f} {made['peak_rss_bytes'] / 1e6:6.0f} "
          f"{loads[0]:6.3f} {loads[1]:6.3f} {1e3 * runs[0]:7.2f} {1e3 * runs[1]:7.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("model", nargs="*")
    options = parser.parse_args()
    unknown = set(options.model) - set(TABLE)
    if unknown:
        sys.exit(f"{', '.join(unknown)}: expected some of {', '.join(TABLE)}")
    print(f"onnxruntime {ort.__version__}, one thread, nothing registered; measured on inputs that "
          f"calibration did not see\n")
    print(f"{'model':12} {'bytes':>9} {'small':>8} {'ratio':>6} {'distance':>14} {'':16} "
          f"{'task score':29} {'CPU s':>7} {'MB':>6} {'load s':>13} {'inference ms':>15}")
    for name in options.model or TABLE:
        row(name, options)


main()
