"""Where the checks here find what they drive: ONNXPRESS_BUILD names the build folder."""
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("ONNXPRESS_BUILD", ROOT / "build" / "sanitize")).resolve()
PROGRAM = BUILD / "src" / "onnxpress"


def driver(name):
    """The test program `name` of this folder."""
    return BUILD / "tests" / name
