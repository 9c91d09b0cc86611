#!/usr/bin/env python3
"""The installed library as a C programmer meets it: exports, header, pkg-config, shared and static."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from paths import ROOT

BUILD = ROOT / "build" / "release"
SOURCE = """
#include <onnxpress.h>
#include <stdio.h>
/* Names of the library's inside are the user's to use. */
int file_map(void) { return 1; }
int error_set(void) { return 2; }
int main(int argc, char **argv)
{
    OnnxPressOptions options;
    OnnxPressReport *report = NULL;
    OnnxPressError error = {0};
    onnxpress_options_init(&options);
    if (argc != 3 || onnxpress_compress(argv[1], argv[2], &options, &report, &error))
        return printf("failed: %s\\n", error.message), 1;
    printf("%.1f %d\\n", report->ratio, file_map() + error_set());
    onnxpress_report_free(report);
    return 0;
}
"""


def output(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True,
                          **options).stdout


def main():
    declared = set(re.findall(r"\b(onnxpress_\w+)\(", (ROOT / "src" / "onnxpress.h").read_text()))
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        output("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", work)
        prefix = work / "usr" / "local"
        library = next(prefix.rglob("libonnxpress.so")).parent
        exported = {line.split()[-1] for line in
                    output("nm", "-D", "--defined-only", library / "libonnxpress.so").splitlines()}
        assert exported == declared, exported ^ declared
        for header in prefix.rglob("*.h"):
            assert header.name == "onnxpress.h", header
        (work / "user.c").write_text(SOURCE)
        environment = dict(os.environ, PKG_CONFIG_PATH=str(library / "pkgconfig"),
                           PKG_CONFIG_SYSROOT_DIR=str(work), LD_LIBRARY_PATH=str(library))
        for kind in ("shared", "static"):
            flags = output("pkg-config", "--cflags", "--libs", "onnxpress", env=environment).split()
            if kind == "static":  # our archive on the system's shared libraries
                flags = [library / "libonnxpress.a" if f == "-lonnxpress" else f for f in flags]
                flags += ["-lprotobuf-c", "-lopenblas", "-lzip", "-lzstd", "-lcjson", "-lm", "-fopenmp"]
            output("cc", work / "user.c", "-o", work / kind, *flags, env=environment)
            said = output(work / kind, ROOT / "testdata" / "lenet5_mnist.onnx", work / "small.onnx",
                          env=environment)
            assert float(said.split()[0]) > 4 and said.split()[1] == "3", said
            print(f"{kind}: links, runs, ratio {said.split()[0]}")
    print(f"{len(exported)} exported functions, all of onnxpress.h")


if __name__ == "__main__":
    sys.exit(main())
