#!/bin/bash
# Installs what Trident needs to build; says nothing when it is all there.
#
#   scripts/setup.sh           compiler, CMake, MPI and the libraries
#   scripts/setup.sh --check   and what all tests need: MPICH, Valgrind, QEMU, clang's tools
#   scripts/setup.sh --demo    and the text that the demo trains on
#   scripts/setup.sh --bench   and what bench/ted.sh makes networks with
#
# As root it installs. Otherwise it asks on a terminal before it uses sudo; without a terminal it
# prints the command and exits 2.
set -eu

# package, or package:command where a command of that name on PATH does as well
packages=(gcc:cc libc6-dev cmake:cmake ninja-build:ninja pkg-config:pkg-config binutils:nm
    openmpi-bin libopenmpi-dev libdnnl-dev libhwloc-dev libjansson-dev libyaml-dev libxxhash-dev
    libpcre2-dev libutf8proc-dev zlib1g-dev libzstd-dev libprotobuf-c-dev
    protobuf-c-compiler:protoc-c libcmocka-dev)
check_packages=(mpich libmpich-dev valgrind libc6-dbg clang:clang libomp-dev clang-tidy:clang-tidy
    clang-format:clang-format qemu-user:qemu-x86_64)
demo_packages=(bible-kjv:bible)
bench_packages=(iproute2:ip iperf3:iperf3)

for option in "$@"; do
    case $option in
        --check) packages+=("${check_packages[@]}") ;;
        --demo) packages+=("${demo_packages[@]}") ;;
        --bench) packages+=("${bench_packages[@]}") ;;
        *)
            echo "usage: scripts/setup.sh [--check] [--demo] [--bench]" >&2
            exit 2
            ;;
    esac
done

have_package() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Without dpkg nobody can say what is installed: look for what the build itself looks for.
check_other_system() {
    local lacking=() command module
    for command in cc cmake ninja pkg-config protoc-c; do
        command -v "$command" >/dev/null || lacking+=("$command")
    done
    for command in mpicc mpiexec; do
        command -v "$command.openmpi" "$command" >/dev/null || lacking+=("$command")
    done
    for module in jansson yaml-0.1 libxxhash libpcre2-8 libutf8proc zlib libzstd hwloc \
        libprotobuf-c cmocka; do
        pkg-config --exists "$module" 2>/dev/null || lacking+=("$module (development files)")
    done
    echo '#include <oneapi/dnnl/dnnl.h>' | cc -E -o /dev/null - 2>/dev/null ||
        lacking+=("oneDNN (development files)")
    if [ ${#lacking[@]} -gt 0 ]; then
        {
            echo "setup: this is not Debian, so nothing was installed. Trident needs:"
            printf '    %s\n' "${lacking[@]}"
            echo "docs/dependencies.md says what each is for."
        } >&2
        exit 2
    fi
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    check_other_system
    exit 0
fi

missing=()
for entry in "${packages[@]}"; do
    package=${entry%%:*}
    have_package "$package" && continue
    if [ "$package" != "$entry" ] && command -v "${entry#*:}" >/dev/null; then
        continue
    fi
    missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

install=(apt-get install -y --no-install-recommends "${missing[@]}")
as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
    command_line="sudo apt-get update && sudo ${install[*]}"
    if ! [ -t 0 ] || ! [ -t 2 ] || ! command -v sudo >/dev/null; then
        printf 'setup: packages are missing; install them with\n    %s\n' "$command_line" >&2
        exit 2
    fi
    printf 'setup: packages are missing; this would install them:\n    %s\n' "$command_line" >&2
    read -r -p "Run it now? [y/N] " answer
    case $answer in
        y | Y | yes) as_root=(sudo env DEBIAN_FRONTEND=noninteractive) ;;
        *) exit 2 ;;
    esac
fi

echo "setup: installing ${missing[*]}" >&2
# One mirror that does not answer need not stop the rest; what cannot be had fails below.
"${as_root[@]}" apt-get update -qq >&2 || echo "setup: apt-get update failed; trying anyway" >&2
"${as_root[@]}" "${install[@]}" -qq -o Dpkg::Use-Pty=0 >&2 || {
    echo "setup: could not install ${missing[*]}" >&2
    exit 3
}
