#!/usr/bin/env bash
# Install what is missing: QEMU, a C compiler and Python's venv through apt, then the locked dependencies into .venv.
# With `tests`, the cross compilers and emulators that the tests need, too. Silent about what is there already; quick the
# second time.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need qemu-system-arm qemu-system-arm
need qemu-system-aarch64 qemu-system-arm
need qemu-system-x86_64 qemu-system-x86
need dpkg-deb dpkg
need cc gcc
if [ "${1:-}" = tests ]; then
    for pair in arm-linux-gnueabi:armel aarch64-linux-gnu:arm64 riscv64-linux-gnu:riscv64; do
        triple=${pair%%:*}
        [ "$(uname -m)" != "${triple%%-*}" ] || continue
        need "$triple-gcc" "gcc-$triple"
        [ -e "/usr/$triple/include/stdio.h" ] || missing+=("libc6-dev-${pair##*:}-cross")
    done
    need qemu-arm qemu-user # runs what is exported for hypervisors
fi
python=${PYTHON:-python3}
need "$python" python3
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: this machine has no apt; install yourself: ${missing[*]}" >&2
        exit 2
    fi
    echo "setup: installing ${missing[*]} through apt"
    log=$(mktemp)
    if ! { as_root apt-get -q update && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "setup: apt could not install ${missing[*]}; the whole log is $log" >&2
        exit 2
    fi
    rm -f "$log"
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: Yamori needs Python 3.11 or later, $python is $("$python" -V 2>&1); set PYTHON to a newer one" >&2
    exit 2
fi

stamp=.venv/.installed
wanted=$(cat requirements.lock pyproject.toml | sha256sum)
if [ ! -x .venv/bin/yamori ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "setup: installing the locked dependencies into .venv"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
    "${pip[@]}" install --require-hashes -r requirements.lock
    "${pip[@]}" install --no-deps --no-build-isolation -e .
    printf '%s' "$wanted" >"$stamp"
fi

if ! .venv/bin/python -m yamori.probes.ahead; then
    echo "setup: the probes could not be compiled ahead; they will be interpreted" >&2
fi
