#!/bin/bash
# The largest base model that fits a device, against the tensor degree, by `trident plan`:
#
#   bench/base_model.sh [--quick | --time]
#
# The paper's claim is 4 to 8 times larger base models. The model is its GPT: 32 layers, 24 heads,
# sequences of 2048, 16 experts in every second layer, one expert a token. Ranks = T x 16 x 4: the
# replicas of an expert, 4, are held fixed, so T is all that changes. bf16, one row at a time, every
# block recomputed, sequence_parallel. Base parameters are those that one token meets. BUILD=DIR has
# bin/trident (default build/release); --quick: one device, two degrees.
#
# --time: instead of all that, the largest on 128 V100 (T x 16 x 8 / T) of 16 and 32 GB, and what a
# step of 128 rows takes there by `trident plan --cluster`, on nodes of 6 and of 8: a step's
# milliseconds, communication that nothing hides, tokens a second, and 6 operations for each base
# parameter and token, in TFLOP/s of a GPU.
#
# Then what the tiled optimizer saves on the paper's 6.7B model on 128 ranks: the f32 copy of
# gradients that an untiled step makes.
set -eu
cd "$(dirname "$0")/.."

build=${BUILD:-build/release}
degrees=(1 2 4 6 8)
devices=(16 32 80)
if [ "${1:-}" = --quick ]; then
    degrees=(1 4)
    devices=(16)
fi
replicas=4 rows=$((16 * 4))

# plan HIDDEN T key=value …: the JSON of a rank.
plan() {
    local hidden=$1 tensor=$2
    shift 2
    "$build/bin/trident" plan examples/paper_gpt.yaml --json --ranks $((tensor * 16 * replicas)) \
        parallel.tensor="$tensor" parallel.expert=16 precision=bf16 \
        model.vocab_size=51200 model.num_layers=32 model.hidden_size="$hidden" \
        moe.num_experts=16 data.sequence_length=2048 \
        train.global_batch=$rows train.micro_batch=1 train.recompute=full \
        train.sequence_parallel=true "$@"
}

# Bytes that a rank takes, the process's own with them.
bytes_of() {
    sed -n 's/.*"bytes":{[^}]*"total":\([0-9]*\)}.*"process":\([0-9]*\).*/\1 \2/p' |
        awk '{printf "%.0f\n", $1 + $2}'
}

tiles_of() {
    sed -n 's/.*"bytes":{[^}]*"tiles":\([0-9]*\).*/\1/p'
}

# Largest hidden size, a multiple of 48 (24 heads of an even size), that fits so many bytes.
largest() {
    local limit=$1 tensor=$2 low=1 high=512 middle
    shift 2
    while ((high - low > 1)); do
        middle=$(((low + high) / 2))
        if (($(plan $((48 * middle)) "$tensor" model.num_heads=24 "$@" | bytes_of) <= limit)); then
            low=$middle
        else
            high=$middle
        fi
    done
    echo $((48 * low))
}

# Attention 4 H^2 and MLP 8 H^2 a layer with biases and norms, embeddings; the routers with them.
parameters() {
    awk -v h="$1" 'BEGIN {
        printf "%.0f", 32 * (12 * h * h + 13 * h) + 16 * 16 * h + (51200 + 2048 + 2) * h}'
}

table() {
    local title=$1 device tensor hidden base first
    shift
    echo "$title"
    printf '%8s %4s %6s %8s %12s %12s %8s\n' device T ranks hidden 'base, B' 'total, B' ratio
    for device in "${devices[@]}"; do
        first=
        for tensor in "${degrees[@]}"; do
            hidden=$(largest $((device * 1000000000)) "$tensor" "$@")
            base=$(parameters "$hidden")
            first=${first:-$base}
            awk -v d="$device" -v t="$tensor" -v h="$hidden" -v b="$base" -v f="$first" 'BEGIN {
                total = b + 16 * 15 * (8 * h * h + 5 * h)
                printf "%5d GB %4d %6d %8d %12.2f %12.1f %8.2f\n",
                    d, t, t * 64, h, b / 1e9, total / 1e9, b / f}'
        done
    done
    echo
}

# A number of a JSON object.
number() {
    grep -o "\"$1\":[0-9.e+-]*" | head -1 | cut -d: -f2
}

# MACHINE GIGABYTES: the largest base model of 128 of these, and a step of it.
times() {
    local machine=$1 device=$2 tensor hidden answer
    rows=128
    echo "examples/clusters/$machine.yaml, $device GB, 128 ranks"
    printf '%4s %8s %10s %10s %10s %12s %10s\n' T hidden 'base, B' ms exposed tokens/s TFLOP/s
    for tensor in 1 2 4 8; do
        replicas=$((8 / tensor))
        hidden=$(largest $((device * 1000000000)) "$tensor" train.gradient_dtype=bf16)
        answer=$(plan "$hidden" "$tensor" model.num_heads=24 train.gradient_dtype=bf16 \
            --cluster "examples/clusters/$machine.yaml")
        awk -v t="$tensor" -v h="$hidden" -v b="$(parameters "$hidden")" \
            -v ms="$(number step_ms <<<"$answer")" -v open="$(number exposed_ms <<<"$answer")" '
            BEGIN {
                tokens = 128 * 2048
                printf "%4d %8d %10.2f %10.0f %10.0f %12.0f %10.1f\n", t, h, b / 1e9, ms, open,
                    tokens / ms * 1e3, 6 * b * tokens / ms * 1e3 / 128 / 1e12
            }'
    done
    echo
}

if [ "${1:-}" = --time ]; then
    times summit_v100 16
    times dgx1_v100 32
    exit
fi

for stash in false true; do
    echo "communication_aware_checkpointing=$stash"
    table "gradients in bf16, as the paper's" train.gradient_dtype=bf16 \
        train.communication_aware_checkpointing=$stash
    table "gradients in f32, the default" train.communication_aware_checkpointing=$stash
done

# Twice the experts are twice the experts' part: the difference is that of 16.
echo "f32 copies of gradients, the paper's 6.7B on 128 ranks (T 2, E 16, D 4), bytes a rank"
spike=(model.num_heads=32 train.gradient_dtype=bf16)
none=$(plan 4096 2 "${spike[@]}" train.optimizer_tile=none | tiles_of)
twice=$(plan 4096 2 "${spike[@]}" train.optimizer_tile=none moe.num_experts=32 | tiles_of)
tiled=$(plan 4096 2 "${spike[@]}" | tiles_of)
printf '  untiled            %12d\n' "$none"
printf '  experts of it      %12d   16 E N H^2 / G = %d\n' $((twice - none)) \
    $((16 * 16 * 32 * 4096 * 4096 / 128))
printf '  in tiles           %12d   4 x optimizer_tile = %d\n' "$tiled" $((4 * 1048576))
