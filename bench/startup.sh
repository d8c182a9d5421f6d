#!/bin/bash
# From the start of a job to that of the first training step of examples/demo.yaml:
#
#   bench/startup.sh [TIMES [key=value …]]
#
# The time at which the line of step 1 appears, less the step's own duration (step_ms). The text is
# examples/data; BUILD=DIR has bin/trident (default build/release); RANKS=N (default 2);
# START=threads makes the ranks with --ranks, without mpirun. All is in: MPI, set-up, first touch of
# memory, the evaluation before the first step.
set -eu
cd "$(dirname "$0")/.."

times=${1:-5}
shift || true
build=${BUILD:-build/release}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=()
[ "$(id -u)" -eq 0 ] && root=(--allow-run-as-root)

"$build/bin/trident" tokenize --tokenizer byte --out "$work/text" --valid 0.1 \
    examples/data/tinyshakespeare.txt >"$work/log" 2>&1

start=${START:-mpirun}
case $start in
    mpirun) start_ranks=(mpirun "${root[@]}" --oversubscribe -n "${RANKS:-2}") made=() ;;
    threads) start_ranks=() made=(--ranks "${RANKS:-2}") ;;
    *)
        echo "bench/startup.sh: START is $start, expected mpirun or threads" >&2
        exit 2
        ;;
esac

# Milliseconds from there to the first step.
once() {
    local begin=$EPOCHREALTIME line seen=
    while IFS= read -r line; do
        case $line in
            "step 1/"*) seen=${seen:-$EPOCHREALTIME} ;;
        esac
    done < <("${start_ranks[@]}" "$build/bin/trident" train "${made[@]}" \
        examples/demo.yaml --fresh run_dir="$work/run" data.train="$work/text/train_*.bin" \
        data.valid="$work/text/valid_*.bin" train.steps=1 train.warmup_steps=0 "$@" 2>&1)
    sed -n 's/.*"step":1,.*"step_ms":\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" |
        awk -v begin="$begin" -v seen="$seen" '{print 1e3 * (seen - begin) - $1}'
}

for ((i = 0; i < times; i++)); do
    once "$@"
done | sort -g | awk -v start="$start" '{v[NR] = $1} END {
    printf "%s to first step: median %.0f ms, least %.0f, most %.0f (%d times)\n",
        start, (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2, v[1], v[NR], NR}'
