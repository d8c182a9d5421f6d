#!/bin/bash
# What each option takes and saves in memory and traffic, as `trident plan` knows it to the byte:
# the TED paper's largest model (GPT 6.7B with 16 experts in every second layer, 40 billion
# parameters) on 128 ranks, the rank that takes most.
#
#   bench/options.sh ["KEY=VALUE …" …]      other sets of keys instead
#
# BUILD=DIR has bin/trident (default build/release).
set -eu
cd "$(dirname "$0")/.."

model=(model.vocab_size=50304 model.num_layers=32 model.hidden_size=4096 model.num_heads=32
    moe.num_experts=16 moe.router=balanced data.sequence_length=2048 precision=bf16
    train.global_batch=128 train.micro_batch=4 parallel.tensor=4 parallel.expert=16)
full=train.recompute=full
no_cac=train.communication_aware_checkpointing=false
sets=("" "train.sequence_parallel=true" "$full" "$full $no_cac"
    "$full train.duplicate_token_dropping=false"
    "$full $no_cac train.duplicate_token_dropping=false"
    "$full train.sequence_parallel=true" "$full $no_cac train.sequence_parallel=true"
    "$full comm.overlap=false" "$full train.gradient_dtype=bf16"
    "$full train.gradient_dtype=bf16 train.optimizer_tile=none" "$full reproducible=true")
[ $# -gt 0 ] && sets=("$@")

columns=(activations stash gradients buffers tiles total tensor expert data expert_data)
printf '| keys |'
printf ' %s |' "${columns[@]}"
printf '\n|'
printf ' --- |%.0s' keys "${columns[@]}"
printf '\n'
for set in "${sets[@]}"; do
    read -r -a keys <<<"$set"
    plan=$("${BUILD:-build/release}/bin/trident" plan examples/paper_gpt.yaml --ranks 128 \
        "${model[@]}" "${keys[@]}" --json)
    printf '| %s |' "${set:-(none)}"
    for column in "${columns[@]}"; do
        # Of the balanced plan, which comes first.
        sed "s/.*\"bytes\"\(.*\)\"headroom\".*/\1/; s/.*\"$column\":\([0-9]*\).*/\1/" <<<"$plan" |
            awk '{printf " %.0f |", $1 / 1e6}'
    done
    printf '\n'
done
