#!/bin/bash
# tools/packaging/same_bytes.sh [FOLDER]: builds the committed tree twice, in folders of different
# names and depths below FOLDER (a temporary one), without a compiler cache, and compares every byte
# that is installed and packed. Some five minutes of two cores. Ends with "same bytes", or names
# what differs and exits with 1.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(realpath "$(mktemp -d "${1:-/tmp}/same_bytes.XXXXXX")")
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH CCACHE_DISABLE=1
unset CMAKE_C_COMPILER_LAUNCHER

# make PLACE: a clone there, built, installed and packed
make() {
    local place=$1
    git clone -q . "$place"
    (cd "$place" &&
        cmake --preset release -DCMAKE_INSTALL_PREFIX=/usr &&
        cmake --build --preset release --target trident trident_archive trident_pages &&
        DESTDIR=$place/staged cmake --install build/release &&
        cd build/release && cpack -G DEB) >"$place.log" 2>&1 || {
        tail -n 30 "$place.log"
        exit 1
    }
}

make "$work/one"
make "$work/a/deeper/place/two"
two=$work/a/deeper/place/two
status=0
diff -rq "$work/one/staged" "$two/staged" || status=1
for package in "$work"/one/build/release/*.deb; do
    cmp "$package" "$two/build/release/${package##*/}" || status=1
    sha256sum "$package" | sed 's|/.*/||'
done
sha256sum "$work/one/staged/usr/bin/trident" | sed 's|/.*/||'
sha256sum "$work"/one/staged/usr/lib/*/libtrident.a | sed 's|/.*/||'
if grep -rlFa -e "$work" "$work/one/staged"; then
    echo "name the folder that they were built in" >&2
    status=1
fi
[ $status -eq 0 ] && echo "same bytes"
exit $status
