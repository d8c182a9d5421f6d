#!/bin/bash
# How well a model does with a part of its experts: trained with every token at every expert
# (moe.router dense), with and without the information loss, and with two experts a token; of equal
# size, on equal tokens. Prints perplexity on held-out text against the share of experts at work:
#
#   bench/active.sh [STEPS]          (600)
#
# BUILD=DIR has bin/trident (default build/release), OUT=DIR is where the runs go (default
# runs/active). The model is Tiny Shakespeare's (examples/shakespeare_moe.yaml) with experts of a
# quarter of the width; the last 2 % of the text are held out.
set -eu
cd "$(dirname "$0")/.."

steps=${1:-600}
trident=${BUILD:-build/release}/bin/trident
out=${OUT:-runs/active}
mkdir -p "$out"

[ -e "$out/text" ] || "$trident" tokenize --tokenizer byte --out "$out/text" --valid 0.02 \
    examples/data/tinyshakespeare.txt >/dev/null

# train NAME key=value …
train() {
    local name=$1
    shift
    "$trident" train examples/shakespeare_moe.yaml --fresh run_dir="$out/$name" \
        data.train="$out/text/train_*.bin" data.valid="$out/text/valid_*.bin" \
        moe.intermediate_size=128 train.steps="$steps" eval.every=0 "$@" \
        2>"$out/$name.log" >/dev/null || {
        tail -1 "$out/$name.log" >&2
        exit 1
    }
}

# row NAME LABEL option …: one line of the table.
row() {
    local name=$1 label=$2 found share perplexity
    shift 2
    found=$("$trident" eval "$out/$name" --json "$@" 2>>"$out/$name.log")
    share=$(sed -n 's/.*"expert_share":\([0-9.e-]*\).*/\1/p' <<<"$found")
    perplexity=$(sed -n 's/.*"perplexity":\([0-9.e-]*\).*/\1/p' <<<"$found")
    awk -v name="$name" -v label="$label" -v share="${share:-$(of_top "$@")}" -v p="$perplexity" \
        'BEGIN { printf "| %s | %s | %.1f %% | %.3f |\n", name, label, 100 * share, p }'
}

# The share of a model that chooses, from moe.top_k=N.
of_top() {
    local top=${1:-moe.top_k=8}
    awk -v n="${top#moe.top_k=}" 'BEGIN { print n / 8 }'
}

train dense moe.router=dense
train dense_information moe.router=dense moe.mutual_information=0.01
train top_2 moe.router=top_k moe.top_k=2

echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $steps steps"
echo
echo "| trained | used | experts at work | perplexity |"
echo "| --- | --- | --- | --- |"
for name in dense dense_information; do
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
