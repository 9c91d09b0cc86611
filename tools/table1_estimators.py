"""Estimates of the Hessian's diagonal compared: rank correlation, seconds, and what they are worth."""
import numpy as np

ESTIMATORS = ("gauss-newton", "becker-lecun", "empirical-fisher", "mc-fisher", "hutchinson", "adam",
              "activation", "none")
REFERENCE = "gauss-newton"
SAMPLES = {"lenet5": (100, 1000, 50000), "resnet32": (100, 1000)}


def ranks(values):
    order = np.empty(len(values))
    order[np.argsort(values, kind="stable")] = np.arange(len(values))
    return order


def correlation(a, b):
    """Spearman's, over the weights that both know."""
    both = [name for name in a if name in b]
    x, y = (np.concatenate([h[name].ravel() for name in both]) for h in (a, b))
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1]) if x.min() < x.max() and y.min() < y.max() else None


def table(net):
    counts = SAMPLES[net.name]
    made, hessians = {}, {}
    for samples in counts:
        images, labels = net.first(samples)
        for name in ESTIMATORS:
            path = net.out / f"hessian-{name}-{samples}.npz"
            made[name, samples] = net.make(
                path.stem, ["hessian", net.model, "--calib", images, "--labels", labels, "--importance", name],
                output=path)
            if made[name, samples]:
                hessians[name, samples] = dict(np.load(path))
    reference = hessians[REFERENCE, counts[-1]]
    lines = [f"## Estimates of the Hessian's diagonal: {net.setting['title']}\n",
             f"Rank correlation (Spearman, over all weights) with {REFERENCE} on {counts[-1]:,} samples; the file "
             f"that `compress --method uniform --scope model` makes of it at a mean KL of "
             f"{net.setting['max_kl']} on {len(np.load(net.validation, mmap_mode='r')):,} other training images.\n",
             "| estimate | samples | processor seconds | rank correlation | ratio, real bytes | top-1 % | KL on test |",
             "|---|---|---|---|---|---|---|"]
    for name in ESTIMATORS:
        for samples in counts:
            if (name, samples) not in hessians:
                lines.append(f"| {name} | {samples:,} | failed | | | | |")
                continue
            images, _ = net.first(samples)
            small = net.make(f"estimator-{name}-{samples}",
                             ["compress", net.model, "--calib", images, "--hessian",
                              net.out / f"hessian-{name}-{samples}.npz", "--method", "uniform", "--scope",
                              "model", "--max-kl", net.setting["max_kl"], "--validate", net.validation])
            rank = correlation(reference, hessians[name, samples])
            rank = "–" if rank is None else f"{rank:.3f}"
            size = "no setting reaches the goal | |" if small is None else \
                f"{net.original_bytes() / small['bytes']:.2f} | {small['top1']:.2f} | {small['kl']:.4f}"
            lines.append(f"| {name} | {samples:,} | {made[name, samples]['seconds']:.1f} | {rank} | {size} |")
    return "\n".join(lines) + "\n"
