"""What the tools here share: answers, loads and inference times of models in onnxruntime."""
import pathlib
import time

import numpy as np
import onnxruntime as ort

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "testdata"


def session(path):
    """A stock session with nothing registered, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(made, images, batch=500):
    name = made.get_inputs()[0].name
    return np.concatenate([made.run(None, {name: images[i:i + batch]})[0]
                           for i in range(0, len(images), batch)])


def answers(path, images):
    return run(session(path), images)


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def divergence(before, after):
    """Mean KL divergence of logits, nats."""
    p, q = log_softmax(before), log_softmax(after)
    return float(np.mean(np.sum(np.exp(p) * (p - q), 1)))


def load_times(*paths, runs=5):
    """Median seconds to create a session, for each path, after a warm-up."""
    times = {path: [] for path in paths}
    for path in paths:
        session(path)
    for _ in range(runs):
        for path in paths:
            start = time.perf_counter()
            session(path)
            times[path].append(time.perf_counter() - start)
    return [float(np.median(times[path])) for path in paths]


def interleaved(first, second, images, runs=25):
    """Median inference seconds of both models over interleaved runs, and the median of the ratios."""
    made = session(first), session(second)
    times = [], []
    for r in range(-2, runs):
        for which in ((0, 1) if r % 2 else (1, 0)):
            start = time.perf_counter()
            run(made[which], images)
            if r >= 0:
                times[which].append(time.perf_counter() - start)
    ratio = np.median(np.array(times[1]) / np.array(times[0]))
    return float(np.median(times[0])), float(np.median(times[1])), float(ratio)
