#!/bin/sh
# usage: localize.sh IN.a OUT.a    Joins an archive's objects into one with hidden symbols local.
set -e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ld -r -o "$work/onnxpress.o" --whole-archive "$1"
objcopy --localize-hidden "$work/onnxpress.o"
rm -f "$2"
ar rcsD "$2" "$work/onnxpress.o"
