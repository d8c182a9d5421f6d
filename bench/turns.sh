#!/bin/bash
# What options cost and save: step with each set of keys in turn, so that all meet the same noise.
#
#   bench/turns.sh [--ranks N] [--rounds N] [--steps N] [--markdown]
#       SHAPE "KEY=VALUE …" "KEY=VALUE …" …
#
# The first set (may be empty: "") is what the others are compared with. Medians over the rounds:
# time and processor time of a step as ratios to the first set's of the same round, the largest
# rank's peak memory; also the least time, which a busy machine spoils last, and the loss of the
# last step. BUILD=DIR has bin/step (default build/release); --ranks 1 (default), else mpirun with
# one thread each. A KEY in capitals is a variable of the environment, so that two builds or two
# settings of a library can be compared: "BUILD=../before/build/release" "".
set -eu
cd "$(dirname "$0")/.."

usage() {
    sed -n 's/^#  *\(bench\/turns.sh.*\)/usage: \1/p; s/^#       \(SHAPE.*\)/    \1/p' \
        bench/turns.sh >&2
    exit 2
}

ranks=1
rounds=3
steps=4
format=plain
while [[ ${1:-} == --* ]]; do
    case $1 in
        --markdown) format=markdown ;;
        --ranks | --rounds | --steps)
            [ $# -gt 1 ] || usage
            declare "${1#--}=$2"
            shift
            ;;
        *) usage ;;
    esac
    shift
done
[ $# -ge 2 ] || usage
shape=$1
shift

threads=1
[ "$ranks" -gt 1 ] || threads=$(nproc)

# step KEY=VALUE …: one run of bin/step, its JSON
step() {
    local word build=${BUILD:-build/release} start=(env) keys=()
    for word in "$@"; do
        case $word in
            BUILD=*) build=${word#*=} ;;
            [A-Z]*) start+=("$word") ;;
            *) keys+=("$word") ;;
        esac
    done
    if [ "$ranks" -gt 1 ]; then
        start+=(mpirun --oversubscribe --bind-to none -n "$ranks")
        [ "$(id -u)" -ne 0 ] || start+=(--allow-run-as-root)
    fi
    "${start[@]}" "$build/bin/step" "$shape" --threads "$threads" --steps "$steps" --warm 1 \
        --no-ceiling --json "${keys[@]}"
}

# number KEY JSON
number() {
    sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" <<<"$2"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
lines=
for ((round = 1; round <= rounds; round++)); do
    for set in "$@"; do
        read -r -a keys <<<"$set"
        out=$(step "${keys[@]}" 2>"$log") || {
            cat "$log" >&2
            exit 3
        }
        line=$(number step_ms "$out")$'\t'$(number processor_ms "$out")
        line+=$'\t'$(number peak_bytes "$out")$'\t'$(number loss "$out")$'\t'${set:-(defaults)}
        echo "$line" >&2
        lines+=$line$'\n'
    done
done

awk -F '\t' -v sets=$# -v rounds="$rounds" -v format="$format" '
function median(text, v, n, i, j, x) {
    n = split(text, v, " ")
    for (i = 2; i <= n; i++) {
        x = v[i] + 0
        for (j = i - 1; j >= 1 && v[j] + 0 > x; j--) v[j + 1] = v[j]
        v[j + 1] = x
    }
    return (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2
}
function row(a, b, c, d, e, f, g) {
    if (format == "markdown")
        print "| " a " | " b " | " c " | " d " | " e " | " f " | " g " |"
    else printf "%9s %9s %7s %10s %9s %20s  %s\n", a, b, c, d, e, f, g
}
NF {
    s = (NR - 1) % sets + 1
    if (s == 1) { time = $1; use = $2 }
    ms[s] = ms[s] " " $1
    if (NR <= sets || $1 < least[s]) least[s] = $1
    times[s] = times[s] " " $1 / time
    uses[s] = uses[s] " " $2 / use
    peak[s] = peak[s] " " $3 / 1e6
    loss[s] = $4
    name[s] = $5
}
END {
    row("ms", "least", "times", "processor", "peak MB", "loss", "keys")
    if (format == "markdown") row("---", "---", "---", "---", "---", "---", "---")
    for (s = 1; s <= sets; s++)
        row(sprintf("%.1f", median(ms[s])), sprintf("%.1f", least[s]),
            sprintf("%.2f", median(times[s])), sprintf("%.2f", median(uses[s])),
            sprintf("%.0f", median(peak[s])), loss[s], name[s])
}' <<<"$lines"
