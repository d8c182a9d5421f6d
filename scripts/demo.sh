#!/bin/bash
# Trains a small mixture-of-experts model from nothing, evaluates it before and after, and lets it
# write. Takes three to five minutes on two cores, after the packages.
#
#   scripts/demo.sh               on the King James Bible (Debian's package bible-kjv)
#   scripts/demo.sh FILE…         on texts of your own
#
# What an earlier demo left in runs/demo and runs/demo-tokens is replaced.
set -eu

ranks=2
config=examples/demo.yaml
run=runs/demo
tokens=runs/demo-tokens
prompt="In the beginning "
sample_tokens=400

texts=()
for text in "$@"; do
    if [ ! -f "$text" ] || [ ! -r "$text" ]; then
        echo "demo: $text is no text to read; usage: scripts/demo.sh [FILE…]" >&2
        exit 2
    fi
    texts+=("$(realpath -- "$text")")
done
cd "$(dirname "$0")/.."

say() {
    printf '\n== %s\n' "$*"
}

# The first and the last validation in the run's metrics. A token is a byte here.
print_validations() {
    sed -n 's/.*"step": *\([0-9]*\).*"valid_loss": *\([0-9.eE+-]*\).*/\1 \2/p' \
        "$run/metrics.jsonl" |
        awk 'function line(when, step, loss) {
                 printf "%s training (step %d): loss %.4f, %.3f bits per byte\n",
                        when, step, loss, loss / log(2)
             }
             NR == 1 { line("before", $1, $2) }
             { step = $1; loss = $2 }
             END { if (NR < 2) exit 1; line("after", step, loss) }'
}

if [ ${#texts[@]} -eq 0 ]; then
    scripts/setup.sh --demo
else
    scripts/setup.sh
fi

say "building"
log=$(cmake --preset release 2>&1) || { printf '%s\n' "$log" >&2; exit 3; }
cmake --build --preset release --target trident
trident=build/release/bin/trident
"$trident" --version

say "tokens: one for each byte, the last 5% for validation"
rm -rf "$tokens"
mkdir -p "$tokens"
if [ ${#texts[@]} -eq 0 ]; then
    texts=("$tokens/kjv.txt")
    bible -f 'Gen1:1-Rev22:21' </dev/null >"${texts[0]}"
fi
"$trident" tokenize --tokenizer byte --out "$tokens" --valid 0.05 "${texts[@]}"

say "training on $ranks ranks: $config"
"$trident" train "$config" --ranks "$ranks" --fresh "run_dir=$run" \
    eval.at_start=true eval.batches=0 "data.train=$tokens/train_*.bin" \
    "data.valid=$tokens/valid_*.bin"

say "validation"
print_validations
"$trident" eval "$run" --ranks "$ranks" --data "$tokens/valid_*.bin"

say "a sample: one rank reads what $ranks ranks wrote"
"$trident" generate "$run" --prompt "$prompt" --tokens "$sample_tokens" --temperature 0.8 --seed 1

printf '\nThe run is in %s; docs/README.md goes on from here.\n' "$run"
