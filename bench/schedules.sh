#!/bin/bash
# Schedules over links: four hosts of two ranks (network namespaces, hosts.sh), tensor = 2 within a
# host, expert = 4 across, as in ted.sh, and the same model (step's shape ted) trained with each of
# moe.schedule's, over a range of link rates, beside what `trident plan --cluster` says of each from
# `trident calibrate` on the same ranks and links.
#
#   bench/schedules.sh [--rounds N] [--steps N] [--rates "RATE …"] [--keep DIR] [key=value …]
#
# Prints a Markdown table: milliseconds a step, measured (medians of the rounds) and predicted,
# which is the fastest and which was predicted to be; then the share of predictions within 10 and
# 20 %. RATES are tc's. FRONT goes before each mpirun, PAUSE seconds behind it, as in predict.sh.
#
# Needs root. BUILD=DIR has bin/ (default build/release); KERNELS=FILE has the kernels' rates of
# these ranks, where they have been measured already.
set -eu
cd "$(dirname "$0")/.."
rates="unlimited 1gbit 500mbit 250mbit"
rounds=2
steps=4
keep=
overrides=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --steps | --rates | --keep)
            declare "${1#--}=$2"
            shift
            ;;
        *=*) overrides+=("$1") ;;
        *) sed -n '2,15s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift
done
bin=$(cd "${BUILD:-build/release}" && pwd)/bin
dir=${keep:-$(mktemp -d)}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cleanup() {
    bench/hosts.sh down
    [ -n "$keep" ] || rm -rf "$dir"
}
if [ "$(id -u)" -ne 0 ]; then
    echo "schedules.sh: needs root, to make network namespaces" >&2
    exit 2
fi
scripts/setup.sh --bench
trap cleanup EXIT
trap 'exit 130' INT TERM

schedules=("ted" "overlapped moe.chunks=2" "s1" "s2" "hierarchical")
common=(parallel.tensor=2 parallel.expert=4 moe.router=balanced "${overrides[@]}")

run() {
    # shellcheck disable=SC2016,SC2086
    ${FRONT:-} bench/hosts.sh mpirun 2 sh -c \
        'exec taskset -c $((OMPI_COMM_WORLD_RANK % $(nproc))) "$@"' sh "$@"
    sleep "${PAUSE:-0}"
}

number() {
    grep -o "\"$1\": *[0-9.e+-]*" | head -1 | sed 's/.*: *//'
}

bench/hosts.sh up 4
kernels=${KERNELS:-}
if [ -z "$kernels" ]; then
    kernels=$dir/kernels.yaml
    run "$bin/trident" calibrate --threads 1 --out "$kernels" >&2
fi
: >"$dir/runs"
for rate in $rates; do
    bench/hosts.sh limit "$rate"
    echo "$rate: carries $(bench/hosts.sh measure) Mbit/s" >&2
    run "$bin/trident" calibrate --threads 1 --kernels "$kernels" --out "$dir/$rate.yaml" >&2
    for ((round = 1; round <= rounds; round++)); do
        for schedule in "${schedules[@]}"; do
            read -r -a words <<<"moe.schedule=$schedule"
            "$bin/step" ted --config "${common[@]}" "${words[@]}" >"$dir/c.yaml"
            predicted=$("$bin/trident" plan "$dir/c.yaml" --ranks 8 --cluster "$dir/$rate.yaml" \
                --json 2>>"$dir/log" | tee -a "$dir/plans.jsonl" | number step_ms)
            measured=$(run "$bin/step" ted --threads 1 --warm 1 --steps "$steps" --no-ceiling \
                --json "${common[@]}" "${words[@]}" 2>>"$dir/log" | tee -a "$dir/steps.jsonl" |
                number step_ms)
            printf '%s\t%s\t%s\t%s\n' "$rate" "${schedule%% *}" "$predicted" "$measured" |
                tee -a "$dir/runs" >&2
        done
    done
done

awk -F'\t' '
    function median(list, values, n, i, j, t) {
        n = split(list, values, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && values[j] + 0 < values[j - 1] + 0; j--) {
                t = values[j]; values[j] = values[j - 1]; values[j - 1] = t
            }
        return (values[int((n + 1) / 2)] + values[int((n + 2) / 2)]) / 2
    }
    {
        if (!($1 in seen)) { seen[$1] = 1; rate[++rates] = $1 }
        if (!($2 in met)) { met[$2] = 1; name[++names] = $2 }
        predicted[$1, $2] = $3
        measured[$1, $2] = measured[$1, $2] " " $4
    }
    END {
        printf "| links |"
        for (j = 1; j <= names; j++) printf " %s |", name[j]
        printf " fastest | predicted to be |\n| --- |"
        for (j = 1; j <= names + 2; j++) printf " --- |"
        printf "\n"
        for (i = 1; i <= rates; i++) {
            best = pick = ""
            printf "| %s |", rate[i]
            for (j = 1; j <= names; j++) {
                p = predicted[rate[i], name[j]]
                m[j] = median(measured[rate[i], name[j]])
                off = p / m[j] - 1
                printf " %.0f (%.0f, %+.0f %%) |", m[j], p, 100 * off
                off = off < 0 ? -off : off
                cells++
                ten += off <= 0.10
                twenty += off <= 0.20
                if (best == "" || m[j] < m[best]) best = j
                if (pick == "" || p < predicted[rate[i], name[pick]]) pick = j
            }
            printf " %s | %s, %.2f |\n", name[best], name[pick], m[pick] / m[best]
        }
        printf "\n%d of %d within 10 %%, %d within 20 %%.\n", ten, cells, twenty
    }' "$dir/runs"
