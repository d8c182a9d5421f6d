#!/bin/bash
# Routers on tiny Shakespeare: the model and the steps of examples/shakespeare_moe.yaml with each
# router, three seeds each, in turn. Of the same size and, in use, the same number of active
# parameters: two experts of eight. `dense` trains all eight of a token; its loss is that of all,
# and beside it that of two (`eval --active 2`).
#
#   bench/routers.sh [--quick]        2000 steps, about half an hour on two cores; quick: 100 steps
#
# Prints a Markdown table: the validation loss at the end, how many tokens the busiest expert of a
# layer has beside the mean (1: all alike; the mean over layers, of the validation), milliseconds a
# step (the median of a run). Each is the mean over seeds ± half of what parts the largest from the
# smallest. What a build has no router for is left out, and said. BUILD=DIR has bin/trident (default
# build/release), RUNS=DIR keeps the runs (default: a folder that is removed), SEEDS="1 2 3".
set -eu
cd "$(dirname "$0")/.."

steps=2000
case "${1:-}" in
--quick) steps=100 ;;
"") ;;
*) echo "usage: bench/routers.sh [--quick]" >&2; exit 2 ;;
esac
trident=${BUILD:-build/release}/bin/trident
read -r -a seeds <<<"${SEEDS:-1 2 3}"
work=${RUNS:-$(mktemp -d)}
mkdir -p "$work"
rm -f "$work"/loss_* "$work"/balance_* "$work"/ms_* "$work"/active_*
if [ -z "${RUNS:-}" ]; then
    trap 'rm -rf "$work"' EXIT
fi

names=("top-2" "sparsemixer" "dense + information" "sigmoid + bias")
keys=(
    ""
    "moe.router=sparsemixer"
    "moe.router=dense moe.mutual_information=0.01"
    "moe.score=sigmoid moe.bias_balancing=0.001 moe.aux_loss=0.0001"
)

"$trident" tokenize --tokenizer byte --out "$work/tokens" --valid 0.1 \
    examples/data/tinyshakespeare.txt >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 3; }
common=("data.train=$work/tokens/train_*.bin" "data.valid=$work/tokens/valid_*.bin"
    "train.steps=$steps" "train.warmup_steps=$((steps / 20))" eval.every=0 checkpoint.every=0)

# Of numbers, a line each: "mean ± half the spread".
spread() {
    awk -v form="$1" '{ sum += $1; low = NR == 1 || $1 < low ? $1 : low
                        high = NR == 1 || $1 > high ? $1 : high }
        END { if (NR) printf form " ± " form, sum / NR, (high - low) / 2; else printf "-" }'
}

median() {
    sort -g | awk '{ x[NR] = $1 } END { print (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'
}

# The tables of the last validation: for each layer the most over the mean, and the mean of those.
balance() {
    sed -n 's/.*"valid_expert_load":\[\[\(.*\)\]\].*/\1/p' "$1" | tail -n 1 |
        awk '{ layers = split($0, row, /\],\[/)
               for (l = 1; l <= layers; l++) {
                   n = split(row[l], load, ","); most = 0; all = 0
                   for (e = 1; e <= n; e++) {
                       all += load[e]; most = load[e] > most ? load[e] : most
                   }
                   sum += all ? most * n / all : 0
               }
               print sum / layers }'
}

# Two experts of a model that was trained with all.
active_loss() {
    "$trident" eval "$1" --active 2 --json 2>>"$work/log" |
        sed -n 's/.*"loss":\([0-9.e+-]*\).*/\1/p'
}

skip=()
for i in "${!names[@]}"; do
    read -r -a own <<<"${keys[$i]}"
    if ! "$trident" plan examples/shakespeare_moe.yaml "${common[@]}" "${own[@]}" \
        >"$work/log" 2>&1; then
        skip+=("$i")
        echo "routers: ${names[$i]}: left out: $(tail -n 1 "$work/log")" >&2
    fi
done
for seed in "${seeds[@]}"; do
    for i in "${!names[@]}"; do
        [[ " ${skip[*]:-} " == *" $i "* ]] && continue
        read -r -a own <<<"${keys[$i]}"
        echo "routers: seed $seed: ${names[$i]}" >&2
        run=$work/run_${i}_$seed
        "$trident" train examples/shakespeare_moe.yaml --fresh "run_dir=$run" "seed=$seed" \
            "${common[@]}" "${own[@]}" >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 3; }
        metrics=$run/metrics.jsonl
        sed -n 's/.*"valid_loss":\([0-9.e+-]*\).*/\1/p' "$metrics" | tail -n 1 >>"$work/loss_$i"
        balance "$metrics" >>"$work/balance_$i"
        sed -n 's/.*"step_ms":\([0-9.e+-]*\).*/\1/p' "$metrics" | median >>"$work/ms_$i"
        if [[ "${keys[$i]}" == *router=dense* ]]; then
            active_loss "$run" >>"$work/active_$i"
        fi
    done
done

echo "| router | keys | loss | loss, 2 active | busiest expert | ms a step |"
echo "| --- | --- | --- | --- | --- | --- |"
for i in "${!names[@]}"; do
    [[ " ${skip[*]:-} " == *" $i "* ]] && continue
    active="the same"
    [ -s "$work/active_$i" ] && active=$(spread %.4f <"$work/active_$i")
    printf '| %s | `%s` | %s | %s | %s | %s |\n' "${names[$i]}" "${keys[$i]:-as it is}" \
        "$(spread %.4f <"$work/loss_$i")" "$active" \
        "$(spread %.2f <"$work/balance_$i")" "$(spread %.1f <"$work/ms_$i")"
done
