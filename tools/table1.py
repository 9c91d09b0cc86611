"""The paper's Table 1 and its figures, reproduced.

usage: tools/table1 [--data FOLDER] [--parts table,curves,estimators] [NET ...]

NET: lenet5, resnet32 (default: both). FOLDER holds mnist_train.npz and cifar10_train_jpeg.npz, the
training images; without them they are cloned from the public repositories that testdata/README.md names.

Writes to build/table1/: table.md and results.csv (every file made), NET-fixed and NET-huffman (accuracy
against bits a weight, before and after fine-tuning of the shared centres) as .svg and .png,
estimators.md. The accuracy is onnxruntime's, on the 10,000 test images, of the file that was written;
settings are chosen on training images alone. It resumes where it stopped: a file whose command and model
have not changed is not made again.
"""
import argparse
import csv
import json
import pathlib
import resource
import subprocess
import sys

import numpy as np

import datasets
from measure import DATA, ROOT, answers, divergence

OUT = ROOT / "build" / "table1"
PROGRAM = ROOT / "build" / "onnxpress"
VALIDATION = 2000  # training images on which a goal is measured; the importance takes others

# What is pruned and retrained (the paper's network, with batch normalization where it has any) and how, in one
# run of finetune or several; the goal of the table's rows (nats, on training images), the shared centres'
# fine-tuning and the number of images for it, and the curves' settings: centres of k-means, and bits a weight
# for the other methods.
NETS = {
    "lenet5": {
        "title": "LeNet-5 / MNIST", "start": "lenet5_mnist.onnx",
        "train": [["--epochs", "18", "--prune", "0.98", "--augment", "shift"]],
        "max_kl": 0.003, "tune": ["--finetune", "1", "--augment", "shift"], "tune_images": 20000,
        "levels": (2, 3, 4, 6, 8, 16, 32), "bits": (0.6, 0.8, 1, 1.5, 2, 3)},
    "resnet32": {
        "title": "ResNet-32 / CIFAR-10", "start": "resnet32_bn.onnx",
        "train": [["--epochs", "14", "--batch", "128", "--optimizer", "sgd", "--rate", "0.02", "--decay", "0.0001",
                   "--batch-norm", "train", "--prune", "0.8", "--prune-by", "damage", "--prune-until", "0.5",
                   "--augment", "shift,flip"],
                  *[["--epochs", epochs, "--batch", "128", "--optimizer", "sgd", "--rate", "0.05", "--decay", "0.0002",
                     "--batch-norm", "train", "--teacher", DATA / "resnet32_bn.onnx", "--augment", "shift,flip"]
                    for epochs in (16, 20)]],
        "max_kl": 0.01, "tune": ["--finetune", "1", "--augment", "shift,flip"], "tune_images": 5000,
        "levels": (4, 8, 16, 32, 64), "bits": (1.5, 2, 2.5, 3, 4)},
}
# (top-1 %, ratio by the paper's count); Table 1 of arXiv 1612.01543.
PAPER = {
    "lenet5": {"original": (99.25, 1), "pruned": (99.27, 10.13), "k-means": (99.27, 44.58),
               "Hessian-weighted k-means": (99.27, 47.16), "uniform": (99.28, 51.25),
               "iterative ECSQ": (99.27, 49.01)},
    "resnet32": {"original": (92.58, 1), "pruned": (92.58, 4.52), "k-means": (92.64, 18.25),
                 "Hessian-weighted k-means": (92.67, 20.51), "uniform": (92.68, 22.17),
                 "iterative ECSQ": (92.73, 21.01)},
}
PAPER_SCOPE = ["--scope", "model"]
METHODS = {
    "k-means": ["--method", "kmeans", "--unweighted", *PAPER_SCOPE],
    "Hessian-weighted k-means": ["--method", "kmeans", *PAPER_SCOPE],
    "uniform": ["--method", "uniform", *PAPER_SCOPE],
    "iterative ECSQ": ["--method", "ecsq", *PAPER_SCOPE],
    "compensated (ours)": ["--method", "compensated"],
}


def run(command):
    """Exit code, message, and seconds of processor time, which do not depend on what else the machine does."""
    print("+ onnxpress", *command, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([PROGRAM, *command], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.returncode, done.stderr.strip(), after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


class Net:
    """One network: its data as files, and what is made of it."""

    def __init__(self, name, data_folder):
        self.name, self.setting = name, NETS[name]
        file, calibration, self.data, self.preparation = datasets.MODELS[name]
        self.model, self.calibration = DATA / file, DATA / calibration
        self.out = OUT / name
        self.out.mkdir(parents=True, exist_ok=True)
        self.images, self.labels, self.validation = (self.out / f"{kind}.npy" for kind in
                                                     ("train", "train-labels", "validation"))
        if not self.validation.exists():
            image, label = datasets.training(self.data, data_folder)
            np.save(self.images, image)
            np.save(self.labels, label)
            np.save(self.validation, image[7::len(image) // VALIDATION][:VALIDATION])
        self.test = None
        self.before = None

    def result(self, path):
        """Top-1 (%) and the answers' distance from the original's, on the test images."""
        if self.test is None:
            image, label = datasets.test(self.data)
            self.test = datasets.prepared(self.data, image), label
            self.before = answers(self.model, self.test[0])
        after = answers(path, self.test[0])
        return 100 * float(np.mean(after.argmax(1) == self.test[1])), divergence(self.before, after)

    def make(self, tag, command, output=None):
        """Runs a command that writes OUT/NET/tag.onnx (or `output`), unless that was done; None when it failed.
        A model is measured too."""
        path, record = output or self.out / f"{tag}.onnx", self.out / f"{tag}.json"
        report = self.out / f"{tag}.report.json"
        command = [str(c.relative_to(ROOT)) if isinstance(c, pathlib.Path) else str(c)
                   for c in (*command, *self.preparation, "-o", path)]
        if record.exists():
            found = json.loads(record.read_text())
            if found["command"] == command and (ROOT / command[1]).stat().st_mtime <= record.stat().st_mtime:
                return found if found["status"] == 0 else None
        status, message, seconds = run([*command, "--json", str(report), "--quiet"])
        found = {"command": command, "status": status, "message": message, "seconds": seconds}
        if status == 0:
            found["report"] = json.loads(report.read_text())
            if path.suffix == ".onnx":
                found["bytes"] = path.stat().st_size
                found["top1"], found["kl"] = self.result(path)
        else:
            print(f"  failed: {message}", flush=True)
        record.write_text(json.dumps(found, indent=1))
        return found if status == 0 else None

    def first(self, samples):
        """Files of the first training images and of their labels."""
        paths = [self.out / f"{kind}-{samples}.npy" for kind in ("first", "first-labels")]
        for path, source in zip(paths, (self.images, self.labels)):
            if not path.exists():
                np.save(path, np.load(source, mmap_mode="r")[:samples])
        return paths

    def original_bytes(self):
        return self.model.stat().st_size

    def pruned(self):
        """The network that the rows quantize, its record, and the seconds of all its training."""
        path, seconds = DATA / self.setting["start"], 0
        for k, how in enumerate(self.setting["train"], 1):
            tag = "pruned" if k == len(self.setting["train"]) else f"pruned-{k}"
            found = self.make(tag, ["finetune", path, "--calib", self.images, "--labels", self.labels,
                                    "--checkpoint", self.out / f"{tag}.checkpoint", *how])
            if not found:
                sys.exit(f"{self.name}: pruning failed: see build/table1/{self.name}/{tag}.json")
            path, seconds = self.out / f"{tag}.onnx", seconds + found["seconds"]
        return path, {**found, "seconds": seconds}

    def compress(self, tag, model, args):
        return self.make(tag, ["compress", model, "--calib", self.calibration, *args])


def tag_of(*parts):
    return "-".join(str(p).lower().replace(" ", "-").replace("(", "").replace(")", "") for p in parts)


def tuning(net):
    images, labels = net.first(net.setting["tune_images"])
    return [*net.setting["tune"], "--train", images, "--train-labels", labels]


def table(net):
    """Rows of Table 1: (name, paper's top-1, paper's ratio, record)."""
    pruned, trained = net.pruned()
    goal = ["--max-kl", net.setting["max_kl"], "--validate", net.validation, "--graph", "small"]
    rows = []
    for name, args in METHODS.items():
        for tuned in (False, True):
            tag = tag_of("row", name, "tuned" if tuned else "plain")
            found = net.compress(tag, pruned, [*args, *goal, *(tuning(net) if tuned else [])])
            rows.append((name + (", centres fine-tuned" if tuned else ""), name, found))
    return trained, rows


def curves(net):
    """Points of the figures, of the network before pruning: (method, tuned, record)."""
    hessian = net.out / "hessian.npz"
    if not hessian.exists():
        run(["hessian", str(net.model), "--calib", str(net.calibration), "-o", str(hessian), "--quiet",
             *net.preparation])
    found = []
    for name, args in METHODS.items():
        kmeans = "kmeans" in args
        for x in net.setting["levels"] if kmeans else net.setting["bits"]:
            for tuned in (False, True):
                made = net.compress(
                    tag_of("curve", name, x, "tuned" if tuned else "plain"), net.model,
                    [*args, "--hessian", hessian, "--levels" if kmeans else "--bits", x,
                     *(tuning(net) if tuned else [])])
                if made:
                    found.append((name, tuned, made))
    return found


def draw_curves(net, points, top1):
    from figure import draw
    span = 1.5 if net.name == "lenet5" else 8
    for kind, label, bits in (
            ("fixed", "bits a weight, fixed-length indices", lambda r: r["fixed_codeword_bits"]),
            ("huffman", "average codeword length, bits a weight", lambda r: r["codeword_bits"])):
        lines = [(name + (", fine-tuned" if tuned else ""),
                  [(bits(made["report"]), made["top1"]) for n, t, made in points if (n, t) == (name, tuned)],
                  "-" if tuned else "--")
                 for name in METHODS for tuned in (False, True)]
        draw(OUT / f"{net.name}-{kind}", f"{net.setting['title']}: top-1 (%)", label, "top-1 (%)", lines,
             (top1 - span, top1 + span / 6), ("original", top1))


def row(name, paper, top1, count, real, bits, seconds):
    text = lambda x, form: "–" if x is None else format(x, form)
    return (f"| {name} | {text(paper and paper[0], '.2f')} | {text(paper and paper[1], '.2f')} | "
            f"{top1:.2f} | {text(count, '.2f')} | {text(real, '.2f')} | {text(bits, '.3f')} | "
            f"{text(seconds, '.0f')} |")


def markdown(net, trained, rows):
    paper = PAPER[net.name]
    original, _ = net.result(net.model)
    lines = [f"\n## {net.setting['title']}\n",
             "| | paper: top-1 % | paper: ratio | top-1 % | ratio, paper's count | ratio, real bytes | "
             "bits a weight, real | processor seconds |", "|---|---|---|---|---|---|---|---|",
             row("original", paper["original"], original, 1, 1, 32, None),
             row("pruned and retrained", paper["pruned"], trained["top1"], None, None, None,
                 trained["seconds"])]
    for title, name, made in rows:
        if made is None:
            lines.append(f"| {title} | | | no setting reaches the goal | | | | |")
            continue
        report = made["report"]
        lines.append(row(title, paper.get(title), made["top1"], report["paper_ratio"],
                         net.original_bytes() / made["bytes"], 8 * made["bytes"] / report["weights"],
                         made["seconds"]))
    return lines


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--data", default=ROOT / "build" / "data")
    parser.add_argument("--parts", default="table,curves,estimators")
    parser.add_argument("nets", nargs="*", default=list(NETS))
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if set(arguments.nets) - set(NETS) or set(parts) - {"table", "curves", "estimators"}:
        parser.error(f"nets are {', '.join(NETS)}; parts are table, curves, estimators")
    OUT.mkdir(parents=True, exist_ok=True)
    lines = ["# Table 1 of arXiv 1612.01543, the paper's figures beside ours"]
    made = []
    for name in arguments.nets:
        net = Net(name, arguments.data)
        if "table" in parts:
            trained, rows = table(net)
            lines += markdown(net, trained, rows)
            made += [(name, "pruned and retrained", trained)] + [(name, title, m) for title, _, m in rows if m]
        if "curves" in parts:
            points = curves(net)
            draw_curves(net, points, net.result(net.model)[0])
            made += [(name, method + (", fine-tuned" if tuned else ""), m) for method, tuned, m in points]
        if "estimators" in parts:
            import table1_estimators
            (OUT / f"{name}-estimators.md").write_text(table1_estimators.table(net))
    if "table" in parts:
        (OUT / "table.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))
    keys = ("ratio", "paper_ratio", "levels", "fixed_ratio", "codeword_bits", "position_code")
    with open(OUT / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("network", "method", "top1", "kl", "bytes", *keys, "seconds", "command"))
        for name, method, m in made:
            writer.writerow((name, method, m["top1"], m["kl"], m["bytes"],
                             *(m["report"].get(k) for k in keys), m["seconds"], " ".join(m["command"])))


main()
