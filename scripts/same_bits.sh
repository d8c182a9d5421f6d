#!/bin/bash
# Shows that a change of structure changed no number: builds an older commit beside the present tree
# on this machine, trains, evaluates and plans the same cells with both, and compares every digit.
#
#   scripts/same_bits.sh [OLD_COMMIT] [--only PATTERN]
#
# OLD_COMMIT is by default the one before the first wall moved. --only takes the cells whose name
# matches an extended regular expression. Compared are, per cell: the lines of metrics.jsonl but for
# their times (losses, gradient norms, loads, validation), the digest of the last checkpoint's
# weights, the ledger's calls and bytes (those of saves and of a start apart), and the plan of the
# same ranks. A line a cell; exits 1 where a digit differs, 2 where a cell could not be run. The
# old build and what the last cell left stay in build/same_bits/.
set -u
cd "$(dirname "$0")/.." || exit 3

# The last commit of the first house.
first_house=f3b6f48

old=$first_house
only=.
while [ $# -gt 0 ]; do
    case $1 in
        --only)
            [ $# -gt 1 ] || { echo "same_bits: --only takes a pattern" >&2; exit 2; }
            only=$2
            shift
            ;;
        -*)
            echo "usage: scripts/same_bits.sh [OLD_COMMIT] [--only PATTERN]" >&2
            exit 2
            ;;
        *) old=$1 ;;
    esac
    shift
done

# NAME | RANKS | key=value … (some keys are shorter here: see expand)
#
# Layouts: all that 1, 2, 4, 6 and 8 ranks have for 4 heads and 8 (or 6) experts. Then each option
# where it has something to change, on layouts with all three axes where it can.
cells='
1                      | 1 |
t2                     | 2 | tensor=2
e2                     | 2 | expert=2
d2                     | 2 |
t4                     | 4 | tensor=4
e4                     | 4 | expert=4
d4                     | 4 |
t2e2                   | 4 | tensor=2 expert=2
t2d2                   | 4 | tensor=2
e2d2                   | 4 | expert=2
t2d3                   | 6 | tensor=2
e2d3                   | 6 | expert=2
e3d2                   | 6 | expert=3 moe.num_experts=6
t2e3                   | 6 | tensor=2 expert=3 moe.num_experts=6
e6                     | 6 | expert=6 moe.num_experts=6
d6                     | 6 |
t4e2                   | 8 | tensor=4 expert=2
t4d2                   | 8 | tensor=4
t2e4                   | 8 | tensor=2 expert=4
t2e2d2                 | 8 | tensor=2 expert=2
e8                     | 8 | expert=8
e4d2                   | 8 | expert=4
d8                     | 8 |
bf16 1                 | 1 | precision=bf16
bf16 t2                | 2 | precision=bf16 tensor=2
bf16 t2e2              | 4 | precision=bf16 tensor=2 expert=2
bf16 e2d3              | 6 | precision=bf16 expert=2
bf16 t2e2d2            | 8 | precision=bf16 tensor=2 expert=2
bf16 gradients e2d2    | 4 | precision=bf16 train.gradient_dtype=bf16 expert=2
reproducible 1         | 1 | reproducible=true
reproducible threads   | 1 | reproducible=true threads=2
reproducible t2        | 2 | reproducible=true tensor=2
reproducible t2e2      | 4 | reproducible=true tensor=2 expert=2
reproducible e3d2      | 6 | reproducible=true expert=3 moe.num_experts=6
reproducible t2e2d2    | 8 | reproducible=true tensor=2 expert=2
reproducible bf16 t2d2 | 4 | reproducible=true precision=bf16 tensor=2
recompute 1            | 1 | recompute=full
recompute t2e2         | 4 | recompute=full tensor=2 expert=2
recompute some t2d2    | 4 | recompute=[1] tensor=2
recompute bf16 e2d2    | 4 | recompute=full precision=bf16 expert=2
no cac t2e2            | 4 | recompute=full cac=false tensor=2 expert=2
no dtd t2e2            | 4 | dtd=false tensor=2 expert=2
no dtd no cac t2e2d2   | 8 | dtd=false recompute=full cac=false tensor=2 expert=2
sequence t2            | 2 | sequence_parallel=true tensor=2
sequence t2e2          | 4 | sequence_parallel=true tensor=2 expert=2
sequence recompute     | 8 | sequence_parallel=true recompute=full tensor=4 expert=2
sequence bf16 t2d2     | 4 | sequence_parallel=true precision=bf16 tensor=2
etp 1 t2               | 2 | expert_tensor=1 tensor=2
etp 1 t2e2             | 4 | expert_tensor=1 tensor=2 expert=2
etp 1 t2e2d2           | 8 | expert_tensor=1 tensor=2 expert=2
etp 1 recompute        | 4 | expert_tensor=1 tensor=4 recompute=full
capacity 1             | 1 | moe.capacity_factor=1
capacity t2e2          | 4 | moe.capacity_factor=1 tensor=2 expert=2
capacity step e2d2     | 4 | moe.capacity_factor=1 moe.capacity_window=step expert=2
capacity least likely  | 4 | moe.capacity_factor=1 moe.drop_policy=probability tensor=2
capacity any           | 2 | moe.capacity_factor=1 moe.drop_policy=random expert=2
top 1                  | 4 | moe.top_k=1 moe.normalize_top_k=false tensor=2 expert=2
top 3                  | 2 | moe.top_k=3 expert=2
balanced               | 4 | moe.router=balanced tensor=2 expert=2
deepspeed_top1         | 4 | moe.router=deepspeed_top1 moe.top_k=1 moe.capacity_factor=1.25 \
    tensor=2 expert=2
deepspeed_top2         | 4 | moe.router=deepspeed_top2 moe.capacity_factor=1.25 tensor=2 expert=2
deepspeed_topk         | 2 | moe.router=deepspeed_topk moe.capacity_factor=1.25 expert=2
noise and jitter       | 4 | moe.noise=0.5 moe.jitter=0.1 tensor=2 expert=2
bias balancing         | 4 | moe.bias_balancing=0.01 tensor=2 expert=2
balance of the model   | 4 | moe.aux_scope=model moe.aux_window=step moe.z_loss=0.001 expert=2
idle experts           | 1 | threads=2 moe.num_experts=64 moe.top_k=1 moe.normalize_top_k=false
idle experts e2        | 2 | threads=2 moe.num_experts=64 expert=2
idle experts bf16      | 2 | threads=2 moe.num_experts=64 precision=bf16 tensor=2
idle experts capacity  | 2 | threads=2 moe.num_experts=64 moe.capacity_factor=1 expert=2
idle experts recompute | 4 | threads=2 moe.num_experts=64 recompute=full tensor=2 expert=2
idle experts exact     | 2 | threads=2 moe.num_experts=64 reproducible=true expert=2
shared expert          | 4 | moe.shared_intermediate_size=48 moe.shared_gate=true tensor=2 expert=2
every layer            | 4 | moe.every=1 tensor=2 expert=2
dense t2               | 4 | dense tensor=2
gpt2                   | 4 | model.norm=layernorm model.position=learned model.mlp=gelu \
    model.bias=all model.num_kv_heads=4 model.tie_embeddings=true tensor=2
olmoe                  | 4 | model.qk_norm=full model.num_kv_heads=4 moe.normalize_top_k=false \
    tensor=2 expert=2
qwen                   | 4 | model.qk_norm=head model.bias=qkv tensor=2
documents              | 2 | data.separator=10 tensor=2
one micro-batch        | 4 | train.micro_batch=12 tensor=2
tiles                  | 4 | train.optimizer_tile=1000 precision=bf16 train.gradient_dtype=bf16 \
    tensor=2
no overlap             | 4 | comm.overlap=false expert=2
short messages         | 4 | comm.max_message=1000 tensor=2 expert=2
'

# Differences that a change had to make: "NAME-PATTERN | WHAT | why, and how far". WHAT is metrics,
# weights, ledger, saves, starts or plan.
expected='
.* | starts | before a run ranks agree on more of what they read: tokenizer, masks, init_from
.* | saves | tensors no longer all go to rank 0: each rank writes its own chunks of the files
'
# A validation's losses are now one exact sum over all rows, whatever the layout. They were one for
# each 8 micro-batches of a replica, rounded and then added. How far they may differ, as a part.
valid_bound=1e-15
# Bytes by which the "other" memory of a plan may differ.
other_bound=65536

work=$PWD/build/same_bits
mkdir -p "$work/runs" || exit 3

fail() {
    echo "same_bits: $*" >&2
    exit 2
}

# build FOLDER: release, in FOLDER/build/release
build() {
    (cd "$1" && cmake --preset release && cmake --build --preset release --target trident) \
        >"$work/build.log" 2>&1 || fail "$1 does not build: see $work/build.log"
}

commit=$(git rev-parse --verify --quiet "$old^{commit}") || fail "$old is no commit here"
before=$work/$commit
if [ ! -d "$before" ]; then
    rm -rf "$before.part"
    mkdir "$before.part" || exit 3
    git archive "$commit" | tar -x -C "$before.part" || fail "cannot take $commit out"
    mv "$before.part" "$before" || exit 3
fi
build "$before"
build "$PWD"
declare -A program=([old]=$before/build/release/bin/trident [new]=$PWD/build/release/bin/trident)

cd "$work/runs" || exit 3
text=../../../examples/data/tinyshakespeare.txt
head -c 60000 "$text" >shakespeare.txt
"${program[old]}" tokenize --tokenizer byte --out tokens --valid 0.1 shakespeare.txt \
    >tokenize.log 2>&1 ||
    fail "cannot tokenize: see $work/runs/tokenize.log"
cat >config.yaml <<'END'
seed: 7
threads: 1
run_dir: run
model: {vocab_size: 256, num_layers: 4, hidden_size: 48, num_heads: 4, num_kv_heads: 4,
        intermediate_size: 96, max_position: 32, init_std: 0.1}
moe: {num_experts: 8, top_k: 2, every: 2, intermediate_size: 48, aux_loss: 0.01}
data: {train: "tokens/train_*.bin", valid: "tokens/valid_*.bin", sequence_length: 32}
train: {global_batch: 24, micro_batch: 1, steps: 4, learning_rate: 3.0e-3, warmup_steps: 1}
eval: {every: 2, batches: 2}
END
grep -v '^moe:' config.yaml >dense.yaml

flags=(--oversubscribe --bind-to none)
[ "$(id -u)" -ne 0 ] || flags+=(--allow-run-as-root)

# What is the same in every run of a cell, one file for each kind, in SIDE.*
run() {
    local side=$1 ranks=$2 trident=${program[$1]}
    shift 2
    rm -rf run "$side".*
    mpirun "${flags[@]}" -n "$ranks" "$trident" train "$config" --fresh "$@" >"$side.log" 2>&1 ||
        return 1
    sed -E 's/"(tokens_per_second|step_ms|seconds|eval_ms)":[^,}]*//g
            s/"step_split_ms":\{[^}]*\}//g; s/"valid_loss":[^,}]*//g' \
        run/metrics.jsonl >"$side.metrics"
    grep -oE '"valid_loss":[^,}]*' run/metrics.jsonl | cut -d : -f 2 >"$side.valid"
    "$trident" inspect run/checkpoints/step_4 --json 2>>"$side.log" |
        sed -n 's/.*"digest":"\([0-9a-f]*\)".*/\1/p' >"$side.weights"
    # A line a row, without its times.
    tr -d '\n' <run/ledger.json |
        sed -E 's/\}, *\{/},\n{/g; s/, *"seconds[^,}]*//g' | sed -E 's/[] },]+$//' >"$side.rows"
    starts='"phase": "setup", *"kind": "meta"'
    grep -v -e '"phase": "checkpoint"' -e "$starts" "$side.rows" >"$side.ledger"
    grep -e "$starts" "$side.rows" >"$side.starts"
    grep '"phase": "checkpoint"' "$side.rows" >"$side.saves"
    # "process" is measured: what the libraries of this very process take. "other", and with it
    # "total", holds the sizes of structs, which change: not by more than other_bound.
    "$trident" plan "$config" --ranks "$ranks" --json "$@" >"$side.json" 2>>"$side.log"
    sed -E 's/"process":[0-9]+,//g; s/"(other|total)":[0-9]+,?//g' "$side.json" >"$side.plan"
    grep -o '"other":[0-9]*' "$side.json" | cut -d : -f 2 >"$side.other"
    [ -s "$side.metrics" ] && [ -s "$side.weights" ] && [ -s "$side.ledger" ] && [ -s "$side.plan" ]
}

close_validations() {
    paste old.valid new.valid | awk -v bound="$valid_bound" '
        NF != 2 || $2 - $1 > bound * $1 || $1 - $2 > bound * $1 { wrong = 1 }
        END { exit wrong || NR == 0 }'
}

# Whether the bytes of "other" are close enough, and as many.
close_others() {
    paste old.other new.other | awk -v bound="$other_bound" '
        NF != 2 || $2 - $1 > bound || $1 - $2 > bound { wrong = 1 }
        END { exit wrong || NR == 0 }'
}

# The keys of a cell as a config has them, in words; the config, without its experts for "dense".
expand() {
    local key
    config=config.yaml
    words=()
    for key in "$@"; do
        case $key in
            dense)
                config=dense.yaml
                continue
                ;;
            tensor=* | expert=* | expert_tensor=*) key=parallel.$key ;;
            recompute=* | sequence_parallel=*) key=train.$key ;;
            cac=*) key=train.communication_aware_checkpointing=${key#*=} ;;
            dtd=*) key=train.duplicate_token_dropping=${key#*=} ;;
        esac
        words+=("$key")
    done
}

# Whether a difference is one that had to be.
is_expected() {
    local pattern what
    while IFS='|' read -r pattern what _; do
        if [ "${what// /}" = "$2" ] && [[ $1 =~ ^${pattern// /}$ ]]; then return 0; fi
    done <<<"$expected"
    return 1
}

same=0
others=0
unrun=0
# shellcheck disable=SC2162 # a backslash at its end continues a cell's line
while IFS='|' read name ranks keys; do
    read -r name <<<"$name"
    if [ -z "$name" ] || ! [[ $name =~ $only ]]; then continue; fi
    read -r -a given <<<"$keys"
    expand "${given[@]}"
    line=$(printf '%-24s %s ranks' "$name" "${ranks// /}")
    broken=
    for side in old new; do
        run "$side" "${ranks// /}" "${words[@]}" </dev/null || broken="$broken $side"
    done
    if [ -n "$broken" ]; then
        echo "$line  NOT RUN by$broken: $(grep -h 'trident: error' old.log new.log | head -n 1)"
        unrun=$((unrun + 1))
        continue
    fi
    differ=
    for what in metrics weights ledger saves starts plan; do
        cmp -s "old.$what" "new.$what" || is_expected "$name" "$what" || differ="$differ $what"
    done
    close_validations || differ="$differ valid"
    close_others || differ="$differ other"
    if [ -z "$differ" ]; then
        echo "$line  same: $(wc -l <new.metrics) lines, weights $(cat new.weights)"
        same=$((same + 1))
    else
        echo "$line  DIFFERS in$differ"
        for what in $differ; do
            diff "old.$what" "new.$what" | head -n 4 | cut -c 1-400
        done
        others=$((others + 1))
    fi
done <<<"$cells"

echo "$same cells the same, $others differ, $unrun not run (against ${commit:0:7})"
[ "$unrun" -eq 0 ] || exit 2
[ "$others" -eq 0 ]
