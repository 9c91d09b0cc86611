#!/usr/bin/env python3
"""The report's counts against ones made here, another way, from the values that the result restores to.

The paper's count: Huffman-coded indices, each codeword once more in a table, 32 bits a centre; in a pruned
network the differences between survivors' positions too. Then the bytes of the file by what they are for.
"""
import heapq
import json
import math
import pathlib
import subprocess
import sys
import tempfile
from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from paths import PROGRAM, ROOT

LENET = ROOT / "testdata" / "lenet5_mnist.onnx"
PRUNED = ROOT / "testdata" / "lenet5_pruned_small.onnx"
SAMPLES = np.load(ROOT / "testdata" / "mnist_calibration.npy")[:100]
failures = []


def check(name, condition, detail=""):
    if not condition:
        failures.append(name)
        print(f"FAIL {name}: {detail}")


def huffman(counts):
    """Length of each symbol's codeword, by merging the two rarest again and again."""
    heap = [(n, i, (symbol,)) for i, (symbol, n) in enumerate(sorted(counts.items()))]
    lengths = dict.fromkeys(counts, 1 if len(counts) == 1 else 0)
    heapq.heapify(heap)
    tie = len(heap)
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, tie, left + right))
        tie += 1
    return lengths


def payload(counts):
    lengths = huffman(counts)
    return sum(counts[s] * lengths[s] for s in counts), sum(lengths.values())


def by_name(path):
    return {t.name: numpy_helper.to_array(t).ravel() for t in onnx.load(path).graph.initializer}


def expected(values, coded, pruned):
    """values: all coded weights one after another."""
    positions = differences = table = 0
    if pruned:
        where = np.flatnonzero(values)
        gaps = np.diff(where, prepend=-1)
        counts = Counter(int((g - 1) % 255 + 1) for g in gaps)
        counts[0] = int(((gaps - 1) // 255).sum())
        counts += Counter()  # drops a zero
        positions, differences = payload(counts)
        differences += 8 * len(counts)
        values = values[where]
    counts = Counter(values.tolist())
    bits, table = payload(counts)
    fixed = len(values) * math.ceil(math.log2(len(counts)))
    return {"position_bits": positions, "value_bits": bits, "table": table, "differences": differences,
            "fixed": fixed, "k": len(counts), "values": len(values)}


def check_count(name, model, work, *arguments):
    small, plain, report = work / "small.onnx", work / "plain.onnx", work / "report.json"
    for command in (("compress", model, "-o", small, "--calib", work / "few.npy", "--scope", "model", "-q",
                     "--json", report, *arguments), ("restore", small, "-o", plain)):
        subprocess.run([str(c) for c in (PROGRAM, *command)], check=True, capture_output=True)
    r = json.loads(report.read_text())
    restored, original = by_name(plain), by_name(model)
    coded = [t["name"] for t in r["tensors"] if t["treatment"] == "coded"]
    total = sum(t["count"] for t in r["tensors"])
    values = np.concatenate([restored[n] for n in coded])
    zeros = np.mean(np.concatenate([original[n] for n in coded]) == 0)
    check(f"{name}: pruned", r["paper_gaps"] == (zeros >= 0.1), zeros)
    e = expected(values, coded, r["paper_gaps"])
    for key in ("position_bits", "value_bits"):
        check(f"{name}: {key}", r[key] == e[key], (r[key], e[key]))
    check(f"{name}: codeword_bits", math.isclose(r["codeword_bits"], e["value_bits"] / e["values"]))
    check(f"{name}: fixed_codeword_bits", math.isclose(r["fixed_codeword_bits"], math.log2(e["k"])))
    exact = 32 * (total - len(values))
    check(f"{name}: exact_bits", r["exact_bits"] == exact, (r["exact_bits"], exact))
    # Optimal codes for the same counts may differ in their lengths' plain sum, but by little.
    tables = e["table"] + e["differences"] + 32 * e["k"]
    check(f"{name}: table_bits", abs(r["table_bits"] - tables) <= 0.02 * tables, (r["table_bits"], tables))
    bits = r["position_bits"] + r["value_bits"] + r["table_bits"] + r["exact_bits"]
    check(f"{name}: ratio", math.isclose(r["paper_ratio"], 32 * total / bits))
    check(f"{name}: bits a weight", math.isclose(r["paper_bits_per_weight"], bits / total))
    fixed = e["position_bits"] + e["fixed"] + 32 * e["k"] + e["differences"] + exact
    check(f"{name}: fixed", math.isclose(r["fixed_bits_per_weight"], fixed / total, rel_tol=1e-3),
          (r["fixed_bits_per_weight"], fixed / total))
    check(f"{name}: fixed ratio", math.isclose(r["fixed_ratio"] * r["fixed_bits_per_weight"], 32))
    return r, small, values


def check_parts(name, r, small, values):
    parts, model = r["bytes"], onnx.load(small)
    prefix = json.loads({p.key: p.value for p in model.metadata_props}["onnxpress"])["prefix"]
    size = Counter(streams=0, codebook=0, tables=0, exact=0)
    for t in model.graph.initializer:
        role = t.name[len(prefix)] if t.name.startswith(prefix) else ""
        size[{"s": "streams", "i": "streams", "c": "codebook", "": "exact"}.get(role, "tables")] += t.ByteSize()
    for key, n in size.items():
        check(f"{name}: {key}", parts[key] == n, (parts[key], n))
    size["graph"] = small.stat().st_size - sum(size.values())
    check(f"{name}: graph", parts["graph"] == size["graph"], (parts["graph"], size["graph"]))
    counts = np.array(list(Counter(values.tolist()).values()), float)
    nearest = np.mean(values == values[np.abs(values).argmin()])
    mask = -nearest * np.log2(nearest) - (1 - nearest) * np.log2(1 - nearest)
    p = counts / counts.sum()
    share = mask / -(p * np.log2(p)).sum()
    check(f"{name}: positions", math.isclose(parts["positions"], share * parts["streams"], rel_tol=1e-9),
          (parts["positions"], share * parts["streams"]))
    letters = {t.name[len(prefix)] for t in model.graph.initializer if t.name.startswith(prefix)}
    code = r["position_code"]
    check(f"{name}: position code", code == "mixed" or (code == "gaps") == ("G" in letters),
          (code, letters))
    check(f"{name}: indices", (code == "indices") == ("i" in letters),
          (code, letters))


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        np.save(work / "few.npy", SAMPLES)
        pruned = work / "pruned.onnx"
        subprocess.run([PROGRAM, "restore", PRUNED, "-o", pruned], check=True, capture_output=True)
        codes = set()
        for name, model, arguments in (
                ("dense", LENET, ("--method", "kmeans", "--levels", "13")),
                ("dense, coarse", LENET, ("--method", "uniform", "--step", "0.05")),
                ("lookup", LENET, ("--method", "uniform", "--step", "0.01", "--form", "lookup")),
                ("pruned", pruned, ("--method", "uniform", "--step", "0.02")),
                ("pruned, coarse", pruned, ("--method", "kmeans", "--levels", "6"))):
            r, small, values = check_count(name, model, work, *arguments)
            check_parts(name, r, small, values)
            codes.add(r["position_code"])
            print(f"{name}: {r['paper_ratio']:.2f} by the paper's count, {r['ratio']:.2f} in bytes, "
                  f"{r['fixed_ratio']:.2f} fixed, {r['position_code']}")
        check("more than one code was seen", len(codes) >= 3, codes)
    print(f"{len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
