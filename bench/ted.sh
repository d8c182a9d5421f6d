#!/bin/bash
# The experiment of the TED paper at this machine's size: four hosts of two ranks (network
# namespaces, hosts.sh), tensor = 2 within a host, expert = 4 across, and the same MoE model (step's
# shape ted, every block recomputed) trained with none of the paper's two ways to save
# communication, with each, with both, and with what Trident adds to them. All in turn, over a range
# of link rates.
#
#   bench/ted.sh [--quick] [--markdown] [--rounds N] [--steps N] [--rates "RATE …"] [key=value …]
#
# Prints what each link really carries (iperf3), the share of communication (1 - t(links unlimited)
# / t(limited), the same program), and how many times faster each variant is than the first; medians
# of the rounds. Fails when losses differ: dropping tokens and the fusions may only round otherwise,
# everything else keeps the bits. --quick: one rate, one round. RATES are tc's (1gbit, 250mbit).
#
# Needs root. BUILD=DIR has bin/step (default build/release).
set -eu
cd "$(dirname "$0")/.."

usage() {
    sed -n 's/^#  *\(bench\/ted.sh.*\)/usage: \1/p' bench/ted.sh >&2
    exit 2
}

rates="2gbit 1gbit 700mbit 500mbit 350mbit 250mbit 125mbit"
rounds=3
steps=4
format=plain
quick=
overrides=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes rates=250mbit rounds=1 steps=3 ;;
        --markdown) format=markdown ;;
        --rounds | --steps | --rates)
            [ $# -gt 1 ] || usage
            declare "${1#--}=$2"
            shift
            ;;
        *=*) overrides+=("$1") ;;
        *) usage ;;
    esac
    shift
done

if [ "$(id -u)" -ne 0 ]; then
    echo "ted.sh: needs root, to make network namespaces" >&2
    exit 2
fi
build=${BUILD:-build/release}
if ! [ -x "$build/bin/step" ]; then
    echo "ted.sh: no $build/bin/step; build the preset release first" >&2
    exit 2
fi
build=$(cd "$build" && pwd)
scripts/setup.sh --bench
if ip link show trident0 >/dev/null 2>&1; then
    echo "ted.sh: the hosts are up already; bench/hosts.sh down removes what a killed run left" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'bench/hosts.sh down; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

dropping=train.duplicate_token_dropping
aware=train.communication_aware_checkpointing
variants=(neither DTD CAC both fusions overlap)
options_of() {
    local drop=true stash=true sequence=false overlap=false
    case $1 in
        neither) drop=false stash=false ;;
        DTD) stash=false ;;
        CAC) drop=false ;;
        fusions) sequence=true ;;
        overlap) sequence=true overlap=true ;;
    esac
    echo "$dropping=$drop $aware=$stash train.sequence_parallel=$sequence comm.overlap=$overlap"
}

# once VARIANT: milliseconds a step, loss of the last, MB that a host sends in a step
once() {
    local before after out options
    read -r -a options <<<"$(options_of "$1")"
    before=$(bench/hosts.sh sent)
    out=$(bench/hosts.sh mpirun 2 "$build/bin/step" ted --threads 1 --warm 1 --steps "$steps" \
        --no-ceiling --json parallel.tensor=2 parallel.expert=4 train.recompute=full \
        "${options[@]}" "${overrides[@]}" 2>"$work/log") || {
        cat "$work/log" >&2
        exit 3
    }
    after=$(bench/hosts.sh sent)
    awk -v bytes=$((after - before)) -v steps=$((steps + 1)) -v out="$out" 'BEGIN {
        time = loss = out
        sub(/.*"step_ms": */, "", time)
        sub(/.*"loss": */, "", loss)
        sub(/[,}].*/, "", time)
        sub(/[,}].*/, "", loss)
        print time, loss, bytes / steps / 4 / 1e6
    }'
}

# A link must carry 85 to 102 % of what was set, in bits of the payload.
check_rate() {
    local carried
    carried=$(bench/hosts.sh measure)
    awk -v rate="$1" -v carried="$carried" 'BEGIN {
        if (rate == "unlimited") exit 0
        set = rate + 0
        if (rate ~ /gbit/) set *= 1000
        exit !(carried >= 0.85 * set && carried <= 1.02 * set)
    }' || {
        echo "ted.sh: a link set to $1 carries $carried Mbit/s" >&2
        exit 3
    }
    echo "$1 $carried" >>"$work/rates"
    echo "link $1: carries $carried Mbit/s" >&2
}

# ---- measure -------------------------------------------------------------------------------------

grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /processor: /' >&2
bench/hosts.sh up 4
for rate in unlimited $rates; do
    bench/hosts.sh limit "$rate"
    check_rate "$rate"
done
for ((round = 1; round <= rounds; round++)); do
    for rate in unlimited $rates; do
        bench/hosts.sh limit "$rate"
        for variant in "${variants[@]}"; do
            result=$(once "$variant")
            echo "$round $rate $variant $result" | tee -a "$work/runs" >&2
        done
    done
done

# ---- judge and print -----------------------------------------------------------------------------

awk -v format="$format" -v quick="$quick" -f bench/ted.awk "$work/rates" "$work/runs"
