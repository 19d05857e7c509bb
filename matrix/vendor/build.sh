#!/usr/bin/env bash
# Builds the kernels of this directory from Debian's linux-source packages: build.sh [NAME...]
# Each NAME.config begins with "# ARCHITECTURE BASE TARGET [TREE]"; a device tree is put behind the kernel. What comes out
# goes to build/vendor/NAME: kernel, vmlinux, System.map, config. Needs flex, bison, bc, libssl-dev, libelf-dev, a linux-source package and the cross compilers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../build/vendor
mkdir -p "$out"

archive=$(ls -v /usr/src/linux-source-*.tar.xz 2>/dev/null | tail -n 1) || true
if [ -z "$archive" ]; then
    echo "build.sh: no kernel sources: apt-get install linux-source" >&2
    exit 2
fi
for tool in flex bison bc; do
    command -v "$tool" >/dev/null || { echo "build.sh: $tool is missing: apt-get install $tool" >&2; exit 2; }
done
source=$out/$(basename "$archive" .tar.xz)
if [ ! -d "$source" ]; then
    echo "unpacking $archive"
    rm -rf "$source.partial" && mkdir "$source.partial"
    tar -xf "$archive" -C "$source.partial" --strip-components=1
    mv "$source.partial" "$source"
fi

build() {
    local name=$1 config=$here/$1.config arch base target tree image prefix
    [ -f "$config" ] || { echo "build.sh: there is no $name; there are: $(cd "$here" && ls *.config)" >&2; exit 2; }
    read -r _ arch base target tree <"$config"
    case $arch in
        arm) prefix=arm-linux-gnueabi- ;;
        arm64) prefix=aarch64-linux-gnu- ;;
        riscv) prefix=riscv64-linux-gnu- ;;
        *) prefix= ;;
    esac
    command -v "${prefix}gcc" >/dev/null || { echo "build.sh: ${prefix}gcc is missing; $name is not built" >&2; return 1; }
    [ -f "$out/$name/kernel" ] && { echo "$name: built before"; return 0; }
    local objects=$out/$name.objects
    mkdir -p "$objects" "$out/$name"
    local make=(nice -n 15 make -s -C "$source" "O=$objects" "ARCH=$arch" "CROSS_COMPILE=$prefix")
    "${make[@]}" "$base" >/dev/null
    (cd "$objects" && "$source/scripts/kconfig/merge_config.sh" -m .config "$here/common.config" "$config" >/dev/null)
    "${make[@]}" olddefconfig >/dev/null
    local lost
    lost=$(grep -hx 'CONFIG_[A-Z0-9_]*=y' "$config" | grep -vxFf "$objects/.config" | tr '\n' ' ') || true
    if [ -n "$lost" ]; then
        echo "build.sh: $name cannot have $lost: what it needs is missing (RANDSTRUCT: the compiler's plugin headers)" >&2
        return 1
    fi
    echo "building $name"
    "${make[@]}" "-j$(nproc)" "$target" vmlinux ${tree:+"$tree"}
    case $target in bzImage) image=arch/x86/boot/bzImage ;; *) image=arch/$arch/boot/$target ;; esac
    cp "$objects/vmlinux" "$objects/System.map" "$out/$name/"
    cp "$objects/.config" "$out/$name/config"
    cat "$objects/$image" ${tree:+"$objects/arch/$arch/boot/dts/$tree"} >"$out/$name/kernel"
    rm -rf "$objects"
}

if [ $# -eq 0 ]; then
    set -- $(cd "$here" && ls *.config | grep -v '^common' | sed 's/\.config$//')
fi
failed=0
for name in "$@"; do
    build "$name" || failed=1
done
exit $failed
