#!/bin/bash
# Predicted against measured: `trident calibrate` on the ranks of each job, then steps of `bin/step`
# beside what `trident plan --cluster` says of them, over layouts and recomputation of two shapes on
# 1, 2 and 4 ranks of this machine. Wants a quiet one.
#
#   bench/predict.sh [--quick] [--keep DIR]      --quick: fewer steps; DIR keeps answers
#
# BUILD=DIR has bin/ (default build/release), RANKS="1 2 4" are those that are run. Prints a
# Markdown table, the share of cells within 10 and 20 %, and for each shape and number of ranks how
# far the layout that is predicted to be the fastest is from the fastest one measured. A run is one
# thread a rank.
set -eu
cd "$(dirname "$0")/.."
bin=${BUILD:-build/release}/bin
steps=9
keep=
quick=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) steps=3 quick=--quick ;;
    --keep) keep=$2 && shift ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift
done
dir=${keep:-$(mktemp -d)}
mkdir -p "$dir"
[ -n "$keep" ] || trap 'rm -rf "$dir"' EXIT

run() {
    local ranks=$1
    shift
    if [ "$ranks" = 1 ]; then
        "$@"
    else
        mpirun --oversubscribe --allow-run-as-root --bind-to none -n "$ranks" "$@"
    fi
}

# The first number of a key in a JSON object.
number() {
    grep -o "\"$1\":[0-9.e+-]*" | head -1 | cut -d: -f2
}

# shape precision
shapes=("small f32" "fine bf16")
layouts_1=("")
layouts_2=("" "parallel.expert=2" "parallel.tensor=2")
layouts_4=("" "parallel.expert=4" "parallel.tensor=2 parallel.expert=2" "parallel.tensor=4")
recomputes=(none full)

cell() {
    local ranks=$1 shape=$2 precision=$3 keys=$4
    local -a words
    read -r -a words <<<"$keys"
    "$bin/step" "$shape" --precision "$precision" --config "${words[@]}" >"$dir/c.yaml"
    local predicted measured
    predicted=$("$bin/trident" plan "$dir/c.yaml" --ranks "$ranks" --cluster "$dir/$ranks.yaml" \
        --json | tee -a "$dir/plans.jsonl" | number step_ms)
    measured=$(run "$ranks" "$bin/step" "$shape" --precision "$precision" --threads 1 --json \
        --no-ceiling --steps "$steps" --warm 2 "${words[@]}" 2>>"$dir/log" |
        tee -a "$dir/steps.jsonl" | number step_ms)
    printf '%s\t%s %s\t%s\t%s\t%s\n' "$ranks" "$shape" "$precision" "$keys" "$predicted" "$measured"
}

for ranks in ${RANKS:-1 2 4}; do
    run "$ranks" "$bin/trident" calibrate $quick --threads 1 --out "$dir/$ranks.yaml" >&2
    declare -n layouts=layouts_$ranks
    for shape in "${shapes[@]}"; do
        for layout in "${layouts[@]}"; do
            for recompute in "${recomputes[@]}"; do
                # shellcheck disable=SC2086
                cell "$ranks" $shape "$layout train.recompute=$recompute"
            done
        done
    done
done | awk -F'\t' '
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
    }'
