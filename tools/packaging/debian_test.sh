#!/bin/bash
# tools/packaging/debian_test.sh PACKAGE.deb [FOLDER]: a bare Debian 12 (debootstrap, as root, into
# a scratch folder below FOLDER) installs the package with what it depends on, trains the package's
# own example, and removes it: no file is left. Packages come from the mirror that this machine's
# apt uses. Some minutes; ends with "installed, trained, removed".
set -euo pipefail
[ -f "${1-}" ] || {
    echo "usage: tools/packaging/debian_test.sh PACKAGE.deb [FOLDER]" >&2
    exit 2
}
[ "$(id -u)" -eq 0 ] || {
    echo "debian_test: debootstrap must be root" >&2
    exit 2
}
package=$(realpath "$1")
work=$(realpath "$(mktemp -d "${2:-/tmp}/debian_test.XXXXXX")")
root=$work/root
trap 'umount "$root/proc" "$root/sys" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT

fail() {
    echo "debian_test: $*" >&2
    exit 1
}

inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive OMPI_ALLOW_RUN_AS_ROOT=1 \
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 chroot "$root" "$@"
}

# All files but those that dpkg and apt keep for themselves.
files() {
    (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./tmp \
        -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log \) \
        -prune -o -print | sort)
}

mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
    awk '$2 == "bookworm" {print $1; exit}')
echo "== debootstrap"
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
    fail "$(tail -n 5 "$work/debootstrap.log")"
mount -t proc proc "$root/proc" || fail "cannot mount /proc there"
mount -t sysfs -o ro sysfs "$root/sys" || fail "cannot mount /sys there"
# What a program of several processes has on a machine that has booted.
mkdir -p "$root/dev/shm"

echo "== what it depends on"
needs=$(dpkg-deb -f "$package" Depends)
inside apt-get install -y --no-install-recommends -qq -o Dpkg::Use-Pty=0 \
    -o APT::Sandbox::User=root man-db >"$work/apt.log" 2>&1 || fail "$(tail -n 5 "$work/apt.log")"
inside apt-get satisfy -y --no-install-recommends -qq -o Dpkg::Use-Pty=0 \
    -o APT::Sandbox::User=root "$needs" >>"$work/apt.log" 2>&1 ||
    fail "$(tail -n 5 "$work/apt.log")"
files >"$work/before"

echo "== installs"
cp "$package" "$root/tmp/trident.deb"
inside dpkg -i /tmp/trident.deb >>"$work/apt.log" 2>&1 || fail "$(tail -n 5 "$work/apt.log")"
inside trident --version
inside sh -c 'ldd /usr/bin/trident | grep "not found"' && fail "libraries are missing"
# A minimal Debian leaves pages out of what it installs, unless it is told not to.
inside dpkg -L trident | grep -E 'man1/trident|completions' | head -n 3
inside sh -c '[ ! -e /usr/share/man/man1/trident-train.1.gz ] || man trident-train >/dev/null'

echo "== trains its example"
examples=/usr/share/doc/trident/examples
inside sh -c "mkdir /tmp/run && cd /tmp/run &&
    trident tokenize --tokenizer byte --out data/shakespeare --valid 0.1 \
        $examples/data/tinyshakespeare.txt &&
    trident train $examples/shakespeare_moe.yaml --ranks 2 parallel.expert=2 train.steps=20 \
        train.warmup_steps=5 2>&1 | grep -E 'error|^step|^layout' &&
    trident eval runs/shakespeare_moe" || fail "it did not train"

echo "== removes it"
inside dpkg --purge trident >>"$work/apt.log" 2>&1 || fail "$(tail -n 5 "$work/apt.log")"
files >"$work/after"
diff "$work/before" "$work/after" || fail "these are left"
echo "installed, trained, removed"
