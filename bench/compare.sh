#!/bin/bash
# step against a peer, in turn on one machine, so that both meet the same noise.
#
#   bench/compare.sh SHAPE PRECISION [ROUNDS [STEPS]]      small bf16 3 6
#
# SHAPE: small, small-dense, gpt2-narrow (peers/moe_torch.py), fine, wide (peers/moe_hf.py).
# PRECISION: f32, bf16 (f32 master weights, bf16 products: PyTorch's autocast).
# PEERS=DIR is what peers/setup_peers.sh made (default /opt/peers), BUILD=DIR has bin/step (default
# build/release), THREADS=N (default: all cores). Prints each round, then the medians and their
# ratios: above 1 Trident is faster. "processor" is processor time, which other jobs on the machine
# inflate less.
set -eu
cd "$(dirname "$0")/.."

shape=${1:?usage: bench/compare.sh SHAPE PRECISION [ROUNDS [STEPS]]}
precision=${2:?usage: bench/compare.sh SHAPE PRECISION [ROUNDS [STEPS]]}
rounds=${3:-3}
steps=${4:-6}
peers=${PEERS:-/opt/peers}
build=${BUILD:-build/release}
threads=${THREADS:-$(nproc)}

autocast=$precision
[ "$precision" = bf16 ] && autocast=autocast
case $shape in
    small) peer=(moe_torch.py --moe 1 --dtype "$precision") ;;
    small-dense) peer=(moe_torch.py --moe 0 --dtype "$precision") ;;
    gpt2-narrow) peer=(moe_torch.py --moe 0 --dtype "$precision" --vocab 50304 --batch 4) ;;
    fine) peer=(moe_hf.py --experts-impl grouped_mm --dtype "$autocast") ;;
    wide) peer=(moe_hf.py --experts-impl grouped_mm --dtype "$autocast" --model mixtral --layers 4
        --hidden 1024 --heads 16 --ffn 4096 --experts 8 --topk 2) ;;
    *)
        echo "compare.sh: no peer for shape '$shape'" >&2
        exit 2
        ;;
esac

# The wheel's own libraries first, then the CUDA toolkit's: PyTorch asks for them even on a CPU.
site=$(echo "$peers"/lib/python3*/site-packages)
cuda=${CUDA_HOME:-$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")}
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=$threads

run_peer() {
    LD_LIBRARY_PATH=$site/nvidia/nccl/lib:$cuda/lib64 "$peers/bin/python" "bench/peers/${peer[0]}" \
        "${peer[@]:1}" --threads "$threads" --steps "$steps" --warm 1
}

# number KEY JSON
number() {
    sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" <<<"$2"
}

# before WORD TEXT, after WORD TEXT: the number next to it
before() {
    sed -n "s#.* \([0-9.]*\) $1.*#\1#p" <<<"$2"
}
after() {
    sed -n "s#.* $1 \([0-9.]*\).*#\1#p" <<<"$2"
}

median() {
    sort -g | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'
}

grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /processor: /'
"$build/bin/step" small --steps 1 --warm 0 --json | sed 's/.*"kernels":"\([^"]*\)".*/kernels: \1/'
"$build/bin/ceiling"
table=
for ((i = 1; i <= rounds; i++)); do
    ours=$("$build/bin/step" "$shape" --precision "$precision" --threads "$threads" \
        --steps "$steps" --warm 1 --json)
    theirs=$(run_peer)
    line="$(number tokens_per_second "$ours") $(number processor_ms "$ours")"
    line+=" $(before tok/s "$theirs") $(after 'processor ms' "$theirs")"
    table+=$line$'\n'
    awk -v i="$i" '{
        printf "round %d: trident %.0f tokens/s, %.0f ms of processor a step; peer %.0f, %.0f\n",
            i, $1, $2, $3, $4}' <<<"$line"
done
"$build/bin/ceiling"
speed=$(awk 'NF {print $1 / $3}' <<<"$table" | median)
processor=$(awk 'NF {print $4 / $2}' <<<"$table" | median)
printf '%s %s, %d threads, against %s: ' "$shape" "$precision" "$threads" "${peer[*]}"
printf 'tokens/s %.2f times (processor time %.2f times)\n' "$speed" "$processor"
