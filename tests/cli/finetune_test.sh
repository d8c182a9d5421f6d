#!/bin/bash
# scripts/finetune_demo.sh, a few steps of it: finetune_test.sh PROGRAM SCRATCH-FOLDER
set -eu
program=$1
out=$2/finetune

refuse() {
    printf 'finetune_demo.sh: %s; it said:\n' "$1"
    cat "$out.said"
    exit 1
}

TRIDENT=$program OUT=$out STEPS=10 "$(dirname "$0")/../../scripts/finetune_demo.sh" \
    >"$out.said" 2>&1 || refuse "status $?"
for file in chats/train_000000.mask chats/valid_000000.docs models/base/tokenizer.json \
    models/tuned/config.json models/tuned/model.safetensors; do
    [ -s "$out/$file" ] || refuse "no $file"
done
tail -n 2 "$out.said" | awk '
    { right[NR] = /^(before|after) fine-tuning \(step (0|10)\): loss [0-9.]+, perplexity [0-9.]+$/ }
    { loss[NR] = $6 + 0 }
    END { exit !(right[1] && right[2] && loss[2] > 0 && loss[2] < loss[1]) }' ||
    refuse "no smaller loss at the end"
rm -r "$out" "$out.said"
