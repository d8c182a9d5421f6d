#!/bin/bash
# How well a model does with a part of its experts: trained with every token at every expert
# (moe.router dense), with and without the information loss, sharpened to two experts a token in the
# last third of the steps, and with two experts a token all along; of equal size, on equal tokens.
# Prints perplexity on held-out text against the share of experts at work:
#
#   bench/active.sh [--seeds N] [STEPS]          (1, 600)
#
# With several seeds, which are 1 to N, each number is the mean over them ± half of what parts the
# largest from the smallest. BUILD=DIR has bin/trident (default build/release), OUT=DIR is where the
# runs go (default runs/active). The model is Tiny Shakespeare's (examples/shakespeare_moe.yaml),
# with experts of a quarter of the width; the last 2 % of the text are held out.
set -eu
cd "$(dirname "$0")/.."

seeds=1
if [ "${1:-}" = --seeds ]; then
    seeds=${2:?--seeds N}
    shift 2
fi
steps=${1:-600}
if [ $# -gt 1 ] || ! [[ $seeds =~ ^[1-9][0-9]*$ && $steps =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bench/active.sh [--seeds N] [STEPS]" >&2
    exit 2
fi
trident=${BUILD:-build/release}/bin/trident
out=${OUT:-runs/active}
mkdir -p "$out"

[ -e "$out/text" ] || "$trident" tokenize --tokenizer byte --out "$out/text" --valid 0.02 \
    examples/data/tinyshakespeare.txt >/dev/null

# train NAME key=value …, once with each seed: into NAME_SEED.
train() {
    local name=$1 seed run
    shift
    for ((seed = 1; seed <= seeds; seed++)); do
        run=$out/${name}_$seed
        echo "active: $name, seed $seed" >&2
        "$trident" train examples/shakespeare_moe.yaml --fresh run_dir="$run" seed="$seed" \
            data.train="$out/text/train_*.bin" data.valid="$out/text/valid_*.bin" \
            moe.intermediate_size=128 train.steps="$steps" \
            train.warmup_steps=$((steps < 100 ? steps : 100)) eval.every=0 "$@" \
            2>"$run.log" >/dev/null || {
            tail -1 "$run.log" >&2
            exit 1
        }
    done
}

# The number of that name in a JSON object.
number() {
    sed -n "s/.*\"$1\":\([0-9.e-]*\).*/\1/p"
}

# row NAME LABEL option …: one line of the table.
row() {
    local name=$1 label=$2 seed found share
    shift 2
    for ((seed = 1; seed <= seeds; seed++)); do
        found=$("$trident" eval "$out/${name}_$seed" --json "$@" 2>>"$out/${name}_$seed.log")
        share=$(number expert_share <<<"$found")
        echo "${share:-$(of_top "$@")} $(number perplexity <<<"$found")"
    done | awk -v name="$name" -v label="$label" '
        function low(x, y) { return NR == 1 || y < x ? y : x }
        function high(x, y) { return NR == 1 || y > x ? y : x }
        function spread(form, half) { return NR > 1 ? sprintf(" ± " form, half) : "" }
        NF < 2 { exit failed = 1 }
        { s += $1; s0 = low(s0, $1); s1 = high(s1, $1) }
        { p += $2; p0 = low(p0, $2); p1 = high(p1, $2) }
        END {
            if (failed || NR == 0) exit 1
            printf "| %s | %s | %.1f%s %% | %.3f%s |\n", name, label, 100 * s / NR,
                spread("%.1f", 50 * (s1 - s0)), p / NR, spread("%.3f", (p1 - p0) / 2)
        }'
}

# The share of a model that chooses, from moe.top_k=N.
of_top() {
    local top=${1:-moe.top_k=8}
    awk -v n="${top#moe.top_k=}" 'BEGIN { print n / 8 }'
}

train dense moe.router=dense
train dense_information moe.router=dense moe.mutual_information=0.01
train dense_sharpened moe.router=dense moe.mutual_information=0.01 moe.top_k=2 \
    moe.sharpen_step=$((steps - steps / 3 + 1))
train top_2 moe.router=top_k moe.top_k=2

echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $steps steps, seeds 1 to $seeds"
echo
echo "| trained | used | experts at work | perplexity |"
echo "| --- | --- | --- | --- |"
for name in dense dense_information dense_sharpened; do
    for n in 1 2 3 4 6 8; do
        row "$name" "--active $n" --active "$n"
    done
    for epsilon in 2 1 0.48 0.25; do
        row "$name" "--active-threshold $epsilon" --active-threshold "$epsilon"
    done
    row "$name" "--active-average 0.48" --active-average 0.48
done
for n in 1 2 3 4 8; do
    row top_2 "moe.top_k=$n" moe.top_k="$n"
done
