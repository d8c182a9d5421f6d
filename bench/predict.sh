#!/bin/bash
# Predicted against measured: `trident calibrate` on the ranks of each job, then steps of `bin/step`
# beside what `trident plan --cluster` says of them: layouts, schedules and recomputation of two
# shapes on 1, 2 and 4 ranks of this machine. Wants a quiet one. (bench/schedules.sh: on hosts.)
#
#   bench/predict.sh [--quick] [--keep DIR]      --quick: fewer steps; DIR keeps answers
#
# BUILD=DIR has bin/ (default build/release), RANKS="1 2 4" are those that are run, FRONT goes
# before each program and PAUSE seconds behind it (FRONT="chrt -r 20" PAUSE=30 takes the cores from
# others for a moment). Prints a Markdown table, the share of cells within 10 and 20 %, and for each
# shape and number of ranks how far the way that is predicted to be the fastest is from the fastest
# one measured. A run is one thread a rank, on one core; routing is balanced, as plans take it.
set -eu
cd "$(dirname "$0")/.."
bin=$(cd "${BUILD:-build/release}" && pwd)/bin
steps=5
keep=
quick=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) steps=3 quick=--quick ;;
    --keep) keep=$2 && shift ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift
done
dir=${keep:-$(mktemp -d)}
mkdir -p "$dir"
[ -n "$keep" ] || trap 'rm -rf "$dir"' EXIT

# Ranks of a job stand on the cores in turn.
run() {
    local ranks=$1
    shift
    # shellcheck disable=SC2016,SC2086
    ${FRONT:-} mpirun --oversubscribe --allow-run-as-root --bind-to none -n "$ranks" sh -c \
        'exec taskset -c $((OMPI_COMM_WORLD_RANK % $(nproc))) "$@"' sh "$@"
    sleep "${PAUSE:-0}"
}

# The first number of a key in a JSON object.
number() {
    grep -o "\"$1\": *[0-9.e+-]*" | head -1 | sed 's/.*: *//'
}

# ranks, shape, precision, keys
cells='
1 small f32 train.recompute=none
1 small f32 train.recompute=full
1 fine bf16 train.recompute=none
1 fine bf16 train.recompute=full
2 small f32 parallel.expert=1
2 small f32 parallel.expert=2
2 small f32 parallel.tensor=2 train.recompute=full
2 fine bf16 parallel.expert=2
2 fine bf16 parallel.expert=2 train.recompute=full
2 fine bf16 parallel.tensor=2
4 small f32 parallel.expert=1
4 small f32 parallel.expert=4
4 small f32 parallel.tensor=2 parallel.expert=2 moe.schedule=overlapped moe.chunks=2
4 fine bf16 parallel.expert=4
4 fine bf16 parallel.tensor=2 parallel.expert=2 moe.schedule=ted
4 fine bf16 parallel.tensor=2 parallel.expert=2 moe.schedule=s2
'

cell() {
    local ranks=$1 shape=$2 precision=$3
    shift 3
    local predicted measured
    "$bin/step" "$shape" --precision "$precision" --config moe.router=balanced "$@" >"$dir/c.yaml"
    predicted=$("$bin/trident" plan "$dir/c.yaml" --ranks "$ranks" --cluster "$dir/$ranks.yaml" \
        --json 2>>"$dir/log" | tee -a "$dir/plans.jsonl" | number step_ms)
    measured=$(run "$ranks" "$bin/step" "$shape" --precision "$precision" --threads 1 --json \
        --no-ceiling --steps "$steps" --warm 1 moe.router=balanced "$@" 2>>"$dir/log" |
        tee -a "$dir/steps.jsonl" | number step_ms)
    printf '%s\t%s %s\t%s\t%s\t%s\n' "$ranks" "$shape" "$precision" "$*" "$predicted" \
        "$measured" | tee -a "$dir/cells" >&2
}

: >"$dir/cells"
for ranks in ${RANKS:-1 2 4}; do
    run "$ranks" "$bin/trident" calibrate $quick --threads 1 --out "$dir/$ranks.yaml" >&2
    while read -r -a words; do
        cell "${words[@]}" </dev/null
    done < <(grep "^$ranks " <<<"$cells")
done

awk -F'\t' '
    BEGIN {
        print "| ranks | shape | keys | predicted ms | measured ms | off |"
        print "| --- | --- | --- | --- | --- | --- |"
    }
    {
        off = $4 / $5 - 1
        printf "| %s | %s | %s | %.1f | %.1f | %+.0f %% |\n", $1, $2, $3, $4, $5, 100 * off
        size = off < 0 ? -off : off
        cells++
        ten += size <= 0.10
        twenty += size <= 0.20
        group = $1 " ranks, " $2
        if (!(group in best) || $5 < best[group]) best[group] = $5
        if (!(group in least) || $4 < least[group]) { least[group] = $4; chosen[group] = $5 }
    }
    END {
        printf "\n%d of %d within 10 %%, %d within 20 %%.\n", ten, cells, twenty
        for (group in best)
            printf "%s: what is predicted to be the fastest takes %.2f times the fastest.\n",
                group, chosen[group] / best[group]
    }' "$dir/cells"
