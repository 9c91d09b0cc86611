"""Inputs for the five deployed models of tools/fetch-models, and the scores of their answers.

Each model has `make(part, n)`: n samples as a dict of input name -> array (first axis: samples) and
what is true of them. The parts "calibration" and "test" share no text, no speech and no random
numbers. `score(answers, truth)` turns a list of answers, one a sample, into one number and its name.
"""
import functools
import glob
import io
import wave
import zipfile

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from measure import ROOT

MODELS = ROOT / "build" / "models"
PACKAGES = MODELS / "packages"
FONTS = sorted(glob.glob("/usr/share/fonts/truetype/dejavu/DejaVu*.ttf"))
PARTS = {"calibration": 1, "test": 2}


def member(archive, name):
    with zipfile.ZipFile(next(PACKAGES.glob(archive))) as opened:
        return opened.read(name)


@functools.cache
def texts(part):
    """News: 300 texts to calibrate with, 50 others to test with."""
    name = "lee_background.cor" if part == "calibration" else "lee.cor"
    lines = member("gensim-*.whl", f"gensim/test/test_data/{name}").decode("latin-1").splitlines()
    return [line for line in lines if line.strip()]


def words(part, rng, n):
    text = texts(part)[rng.integers(len(texts(part)))].split()
    start = rng.integers(max(1, len(text) - n))
    return " ".join(text[start:start + n])


def picture(name):
    data = member("scikit_image-*.whl", f"skimage/data/{name}")
    return Image.open(io.BytesIO(data)).convert("RGB")


def font(rng, low, high):
    return ImageFont.truetype(FONTS[rng.integers(len(FONTS))], int(rng.integers(low, high)))


# ---- page orientation ----

def photographed(part, rng):
    """A part of one of two photographed texts: the upper half to calibrate with, the lower to test."""
    image = picture(("page.png", "text.png")[rng.integers(2)])
    w, h = image.size
    top = 0 if part == "calibration" else h // 2
    cut = rng.uniform(0.7, 1)
    x, y = rng.uniform(0, 1 - cut) * w, top + rng.uniform(0, 1 - cut) * h / 2
    return image.crop((int(x), int(y), int(x + cut * w), int(y + cut * h / 2)))


def page(part, rng):
    """An upright page of text: rendered, in uneven light and out of focus now and then, or a
    photographed one."""
    if rng.random() < 0.1:
        return photographed(part, rng)
    w, h = int(rng.integers(300, 600)), int(rng.integers(300, 600))
    paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 80))
    image = Image.new("RGB", (w, h), (paper,) * 3)
    draw, type_ = ImageDraw.Draw(image), font(rng, 12, 30)
    y, line = int(rng.integers(5, 40)), type_.size * rng.uniform(1.1, 1.7)
    while y < h - line:
        draw.text((rng.integers(5, 40), y), words(part, rng, 30), fill=(ink,) * 3, font=type_)
        y += int(line * (1 if rng.random() < 0.9 else 2))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    x = np.asarray(image) + rng.normal(0, rng.uniform(0, 8), (h, w, 1))
    if rng.random() < 0.3:
        y, across = np.mgrid[:h, :w]
        x = x * (1 - rng.uniform(0, 0.4) * y / h - rng.uniform(0, 0.4) * across / w)[..., None]
    return Image.fromarray(np.clip(x, 0, 255).astype(np.uint8))


def orientation_make(part, n):
    rng = np.random.default_rng([PARTS[part], 1])
    images, turns = np.empty((n, 3, 224, 224), np.float32), np.empty(n, int)
    for k in range(n):
        turns[k] = k % 4
        image = page(part, rng).rotate(90 * int(turns[k]), expand=True)
        w, h = image.size
        size = 256 / min(w, h)
        image = image.resize((round(w * size), round(h * size)), Image.LANCZOS)
        w, h = image.size
        image = image.crop(((w - 224) // 2, (h - 224) // 2, (w - 224) // 2 + 224, (h - 224) // 2 + 224))
        x = np.asarray(image, np.float32)[:, :, ::-1] / 255
        x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        images[k] = x.transpose(2, 0, 1)
    return {"x": images}, turns


def orientation_score(answers, turns):
    """The labels turn against the rotation: the model's 90 is a quarter to the right."""
    found = np.array([int(a[0].argmax()) for a in answers])
    return 100 * max(np.mean(found == turns), np.mean(found == (4 - turns) % 4)), "% right"


# ---- text recognizer ----

def recognizer_make(part, n, width=320):
    rng = np.random.default_rng([PARTS[part], 2])
    lines, truth = np.zeros((n, 3, 48, width), np.float32), []
    for k in range(n):
        type_ = font(rng, 24, 36)
        text = words(part, rng, 1 + int(rng.integers(4)))
        while type_.getlength(text) > width - 20 and " " in text:
            text = text.rsplit(" ", 1)[0]
        long = int(min(width, type_.getlength(text) + rng.integers(6, 20)))
        paper, ink = rng.integers(180, 256, 3), rng.integers(0, 100, 3)
        image = Image.new("RGB", (long, 48), tuple(int(c) for c in paper))
        ImageDraw.Draw(image).text((3, (48 - 1.2 * type_.size) / 2), text, font=type_,
                                   fill=tuple(int(c) for c in ink))
        x = np.asarray(image, np.float32)[:, :, ::-1] + rng.normal(0, rng.uniform(0, 6), (48, long, 1))
        lines[k, :, :, :long] = (np.clip(x, 0, 255) / 127.5 - 1).transpose(2, 0, 1)
        truth.append(text)
    return {"x": lines}, truth


@functools.cache
def characters():
    import onnxruntime as ort
    meta = ort.InferenceSession(str(MODELS / "recognizer.onnx")).get_modelmeta().custom_metadata_map
    return ["", *meta["character"].splitlines(), " "]


def recognizer_score(answers, truth):
    table, right = characters(), 0
    for answer, text in zip(answers, truth):
        best = answer[0].argmax(-1)
        kept = [c for k, c in enumerate(best) if c and (k == 0 or c != best[k - 1])]
        right += "".join(table[c] for c in kept).replace(" ", "") == text.replace(" ", "")
    return 100 * right / len(truth), "% of lines"


# ---- sentence encoder ----

def minilm_make(part, n, length=128):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_str(
        member("langchain4j-*.jar", "all-minilm-l6-v2-tokenizer.json").decode())
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    made = [tokenizer.encode(text) for text in texts(part)[:n]]
    ids = np.array([m.ids for m in made], np.int64)
    mask = np.array([m.attention_mask for m in made], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}, mask


def pooled(answers, mask):
    x = np.stack([(a[0] * m[:, None]).sum(0) / m.sum() for a, m in zip(answers, mask)])
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def minilm_score(answers, mask):
    human = np.array([line.split() for line in member(
        "gensim-*.whl", "gensim/test/test_data/similarities0-1.txt").decode().splitlines()], float)
    x = pooled(answers, mask)
    upper = np.triu_indices(len(x), 1)
    return float(np.corrcoef((x @ x.T)[upper], human[upper])[0, 1]), "Pearson"


# ---- voice activity ----

def sound(name):
    """16 kHz mono samples of a file of the Debian packages."""
    path = next((PACKAGES / "pocketsphinx-testdata").rglob(name), None) or \
        next((PACKAGES / "alsa-utils").rglob(name))
    if path.suffix == ".raw":
        return np.fromfile(path, "<i2").astype(np.float32) / 32768
    with wave.open(str(path)) as opened:
        x = np.frombuffer(opened.readframes(opened.getnframes()), "<i2").astype(np.float32) / 32768
        step = opened.getframerate() // 16000
    if step > 1:
        x = x[:len(x) // step * step].reshape(-1, step).mean(1)
    return x


SPEECH = {"calibration": ("sense_and_sensibility_01_austen_64kb-0870.wav", "numbers.raw",
                          "sense_and_sensibility_01_austen_64kb-0890.wav"),
          "test": ("sense_and_sensibility_01_austen_64kb-0920.wav", "goforward.raw",
                   "sense_and_sensibility_01_austen_64kb-0930.wav", "something.raw")}


def silero_make(part, n, frames=80):
    """Clips of 2.6 s: speech at several levels, with pauses and noise, or noise alone."""
    rng = np.random.default_rng([PARTS[part], 4])
    speech, noise = [sound(name) for name in SPEECH[part]], sound("Noise.wav")
    noise = noise[:len(noise) // 2] if part == "calibration" else noise[len(noise) // 2:]
    clips, truth = np.empty((n, frames, 576), np.float32), []
    for k in range(n):
        x = speech[rng.integers(len(speech))]
        start = rng.integers(len(x) - 512 * frames)
        clip = x[start:start + 512 * frames] * np.float32(rng.uniform(0.3, 1.5))
        quiet = rng.random() < 0.3
        if quiet:  # silent from somewhere on
            clip = clip * (np.arange(len(clip)) < rng.integers(len(clip)))
        clip = clip + rng.uniform(0, 0.004) * np.resize(noise, len(clip)) / np.abs(noise).max()
        clip = np.concatenate([np.zeros(64), clip])
        clips[k] = np.stack([clip[512 * f:512 * f + 576] for f in range(frames)])
        truth.append(quiet)
    state = np.zeros((n, 1, 1, 128), np.float32)
    return {"input": clips, "h": state, "c": state}, truth


def silero_score(answers, truth):
    return 100 * float(np.mean([np.mean(a > 0.5) for a in answers])), "% speech"


# ---- detector ----

PHOTOS = {"calibration": ("astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
          "test": ("chelsea.png", "camera.png", "coins.png", "hubble_deep_field.jpg")}


def detector_make(part, n):
    """What the model is for: pictures with characters and shapes strewn over them."""
    rng = np.random.default_rng([PARTS[part], 5])
    scenes = np.empty((n, 3, 416, 416), np.float32)
    for k in range(n):
        if rng.random() < 0.5:
            image = picture(PHOTOS[part][rng.integers(4)])
            w, h = image.size
            cut = rng.uniform(0.4, 1)
            x, y = rng.uniform(0, 1 - cut) * w, rng.uniform(0, 1 - cut) * h
            image = image.crop((int(x), int(y), int(x + cut * w), int(y + cut * h)))
        else:
            image = Image.new("RGB", (400, 300), tuple(int(c) for c in rng.integers(100, 256, 3)))
        size = 416 / max(image.size)
        image = image.resize((int(image.width * size), int(image.height * size)), Image.BILINEAR)
        draw = ImageDraw.Draw(image)
        for _ in range(rng.integers(2, 8)):
            at = rng.integers(0, image.width - 60), rng.integers(0, max(1, image.height - 60))
            colour = tuple(int(c) for c in rng.integers(0, 256, 3))
            if rng.random() < 0.7:
                draw.text(at, words(part, rng, 2)[:int(rng.integers(1, 4))], fill=colour,
                          font=font(rng, 24, 64))
            else:
                draw.ellipse((*at, at[0] + rng.integers(15, 60), at[1] + rng.integers(15, 60)), fill=colour)
        scene = np.full((416, 416, 3), 114, np.float32)
        scene[:image.height, :image.width] = np.asarray(image)[:, :, ::-1]
        scenes[k] = scene.transpose(2, 0, 1)
    return {"images": scenes}, None


def boxes(answer, threshold=0.1, overlap=0.45):
    """The package's own post-processing: decode, threshold, suppress."""
    rows, offset = answer.reshape(-1, answer.shape[-1]).astype(np.float64), 0
    for stride in (8, 16, 32):
        side = 416 // stride
        y, x = np.mgrid[:side, :side]
        part = rows[offset:offset + side * side]
        part[:, :2] = (part[:, :2] + np.stack([x.ravel(), y.ravel()], 1)) * stride
        part[:, 2:4] = np.exp(part[:, 2:4]) * stride
        offset += side * side
    found = rows[:, 4] * rows[:, 5:].max(1)
    rows, found = rows[found > threshold], found[found > threshold]
    corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
    kept = []
    for k in np.argsort(-found):
        if all(iou(corners[k], corners[j]) <= overlap for j in kept):
            kept.append(k)
    return corners[kept]


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.prod(np.maximum(0, high - low))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def detector_score(answers, reference):
    """Share of the original's boxes (all, of a first call) that are found again, IoU at least 0.9,
    less the share of new ones."""
    found = [boxes(a[0]) for a in answers]
    if reference is None:
        return float(sum(map(len, found))), "boxes"
    kept = lost = new = 0
    for mine, theirs in zip(found, reference):
        again = [max((iou(t, m) for m in mine), default=0) >= 0.9 for t in theirs]
        kept, lost = kept + sum(again), lost + len(again) - sum(again)
        new += max(0, len(mine) - len(theirs))
    return 100 * (kept - new) / max(1, kept + lost), "% of boxes"


# name: (make, score, kind of the first output, samples to calibrate with, samples to test with)
TABLE = {
    "orientation": (orientation_make, orientation_score, "probabilities", 320, 200),
    "recognizer": (recognizer_make, recognizer_score, "probabilities", 250, 80),
    "minilm": (minilm_make, minilm_score, "values", 128, 50),
    "silero": (silero_make, silero_score, "bernoulli", 100, 80),
    "detector": (detector_make, detector_score, "values", 100, 50),
}


def sample(inputs, k, batch_axis):
    """Sample k as the model takes it; inputs without a batch axis take the row itself."""
    return {name: x[k] if not batch_axis[name] else x[k:k + 1] for name, x in inputs.items()}


def write(name, part, n):
    """The part's samples as a .npz that `onnxpress compress --calib` takes, and the truth of them."""
    make = TABLE[name][0]
    inputs, truth = make(part, n)
    path = MODELS / "data" / f"{name}_{part}_{n}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        np.savez(path, **inputs)
    return path, inputs, truth
