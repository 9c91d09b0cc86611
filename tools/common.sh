# Shared by the scripts here; to be sourced from the repository's root.

build_packages="gcc meson ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev libzstd-dev
  libopenblas-dev libzip-dev libcjson-dev libpopt-dev python3 python3-venv"
test_packages="check clang libomp-dev protobuf-compiler"

# Installs what is missing of the packages given, with apt, as root or with sudo.
install_packages() {
    local missing="" package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "installing:$missing"
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# build_in DIR [MESON OPTION ...] [-- TARGET ...]: configures once, then builds all or the targets.
build_in() {
    local dir=$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ -e "$dir/build.ninja" ] || meson setup "$dir" "${options[@]}" >"$dir.log" 2>&1 ||
        { cat "$dir.log"; return 1; }
    ninja -C "$dir" "${@:2}" >"$dir.log" 2>&1 ||
        { grep -E 'error|warning|FAILED' -A 5 "$dir.log"; return 1; }
}

# The Python that tests and tools use: build/venv, with the pinned requirements of a folder: `tools`,
# `tests` or `tools/figures`.
python_environment() {
    local stamp=build/venv/.${1//\//-}
    cat tools/requirements.txt "$1/requirements.txt" | cmp -s - "$stamp" && return 0
    [ -e build/venv ] || python3 -m venv build/venv
    build/venv/bin/pip install -q --disable-pip-version-check -r "$1/requirements.txt"
    cat tools/requirements.txt "$1/requirements.txt" >"$stamp"
}
