"""Line charts for people who read papers: one call, an SVG and a PNG."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

COLOURS = ("#c1121f", "#780000", "#0b6e4f", "#8fd3b6", "#1b4b91", "#9bbdf0", "#b5541c", "#f0b48f",
           "#7a2e8e", "#d3a6e0", "#444444", "#aaaaaa")
plt.rcParams.update({"svg.hashsalt": "onnxpress", "svg.fonttype": "none", "font.size": 9})


def draw(path, title, x_label, y_label, lines, y_range, baseline):
    """path without suffix; lines: (label, [(x, y)]) or (label, [(x, y)], style); baseline: (label, y)."""
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    for colour, line in zip(COLOURS, lines):
        points = sorted(line[1])
        if points:
            axes.plot(*zip(*points), marker="o", markersize=3, color=colour, label=line[0],
                      linestyle=line[2] if len(line) > 2 else "-")
    axes.axhline(baseline[1], color="#444", linestyle=":", label=f"{baseline[0]} {baseline[1]:.2f}")
    axes.set(title=title, xlabel=x_label, ylabel=y_label, ylim=y_range)
    axes.grid(color="#eee")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for suffix in ("svg", "png"):
        figure.savefig(path.with_suffix("." + suffix), dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    plt.close(figure)
