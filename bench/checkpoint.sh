#!/bin/bash
# A checkpoint written and read, beside dd of as many bytes to and from the same disk, in turn:
#
#   bench/checkpoint.sh [--ranks N] [--rounds N] [--dir DIR] [key=value …]
#
# Prints seconds and, as medians over the rounds, the ratios to dd's. Writing ends with a sync in
# both; both read the same files, which are put out of the system's cache before, and before each
# turn what others have not yet written is waited for. Checksums are taken in both directions. The
# checkpoint has 2 GB unless keys make it another; DIR (default build/checkpoint_bench) is on the
# disk that is measured. BUILD=DIR has bin/checkpoint (default build/release).
set -eu
cd "$(dirname "$0")/.."

ranks=4
rounds=3
dir=build/checkpoint_bench
while [[ ${1:-} == --* ]]; do
    case $1 in
        --ranks | --rounds | --dir)
            [ $# -gt 1 ] || { echo "bench/checkpoint.sh: $1 takes a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift
            ;;
        *)
            echo "usage: bench/checkpoint.sh [--ranks N] [--rounds N] [--dir DIR] [key=value …]" >&2
            exit 2
            ;;
    esac
    shift
done
program=${BUILD:-build/release}/bin/checkpoint
flags=(--oversubscribe --bind-to none)
[ "$(id -u)" -eq 0 ] && flags+=(--allow-run-as-root)
mkdir -p "$dir"
trap 'rm -rf "$dir"' EXIT

checkpoint() {
    OMP_NUM_THREADS=1 mpirun "${flags[@]}" -n "$ranks" "$program" "$@"
}
now() { echo "$EPOCHREALTIME"; }
# Out of the cache, for dd and for us.
forget() {
    sync
    for file in "$@"; do
        dd of="$file" oflag=nocache conv=notrunc,fdatasync count=0 2>/dev/null
    done
}
read_all() {
    for file in "$@"; do
        dd if="$file" of=/dev/null bs=1M
    done
}
# seconds COMMAND …
seconds() {
    local begin
    begin=$(now)
    "$@" 2>/dev/null
    awk -v a="$begin" -v b="$(now)" 'BEGIN {printf "%.3f", b - a}'
}

echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $ranks ranks"
for ((i = 1; i <= rounds; i++)); do
    rm -rf "$dir/step_1"
    sync
    save=$(checkpoint save "$dir/step_1" "$@")
    bytes=$(cat "$dir"/step_1/* | wc -c)
    blocks=$(((bytes + 1048575) / 1048576))
    rm -f "$dir/dd"
    sync
    write=$(seconds dd if=/dev/zero of="$dir/dd" bs=1M count="$blocks" conv=fsync)
    rm -f "$dir/dd"
    forget "$dir"/step_1/*
    read=$(seconds read_all "$dir"/step_1/*)
    forget "$dir"/step_1/*
    load=$(checkpoint load "$dir/step_1" "$@")
    echo "round $i: $blocks MiB; dd writes $write s, save $save; dd reads $read, load $load"
    echo "$write $save $read $load" >>"$dir/times"
done
median() {
    sort -g | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'
}
printf 'save / dd %.2f, load / dd %.2f (medians of %d)\n' \
    "$(awk '{print $2 / $1}' "$dir/times" | median)" \
    "$(awk '{print $4 / $3}' "$dir/times" | median)" "$rounds"
