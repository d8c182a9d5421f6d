#!/bin/bash
# Predicted against measured: `trident calibrate` on the ranks of each job, then steps of `bin/step`
# beside what `trident plan --cluster` says of them: layouts, schedules and recomputation of shapes
# on 1, 2 and 4 ranks of this machine and on four hosts of one rank (network namespaces, hosts.sh;
# needs root) whose links have three rates. Wants a quiet machine for a quarter of an hour.
# (bench/schedules.sh: schedules over links.)
#
#   bench/predict.sh [--keep DIR] [PLACE …]      PLACE: 1, 2, 4, or a link rate of the hosts
#
# Prints a Markdown table of 24 cells and the share within 10 and 20 %; then, for each shape and
# place, what `auto` takes of layout, schedule and chunks, and how far that is from the fastest of
# all ways that were measured there: the cells, `auto`'s own, and some more. DIR keeps what was
# measured, machines and steps: that is not run again, only planned. BUILD=DIR has bin/ (default
# build/release), FRONT goes before each program and PAUSE seconds behind it (FRONT="chrt -r 20"
# PAUSE=30 takes the cores from others for a moment). A run is one thread a rank, on one core;
# routing is balanced, as plans take it.
set -eu
cd "$(dirname "$0")/.."
bin=$(cd "${BUILD:-build/release}" && pwd)/bin
steps=4
keep=
places=()
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=$2 && shift ;;
    [0-9]* | unlimited) places+=("$1") ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift
done
[ ${#places[@]} -gt 0 ] || places=(1 2 4 unlimited 1gbit 250mbit)
dir=${keep:-$(mktemp -d)}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
up=
cleanup() {
    [ -z "$up" ] || bench/hosts.sh down
    [ -n "$keep" ] || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# place, whether it is of the table (=) or measured for `auto` alone (-), shape, precision, keys
cells='
1 = small f32 train.recompute=none
1 = gqa f32 train.recompute=full
2 = small f32 parallel.expert=1
2 = small f32 parallel.expert=2
2 - small f32 parallel.tensor=2
2 = gqa bf16 parallel.expert=2 train.recompute=full
2 - gqa bf16 parallel.expert=2
2 = gqa bf16 parallel.tensor=2
4 = small f32 parallel.expert=1
4 - small f32 parallel.expert=4
4 = small f32 parallel.tensor=2 parallel.expert=2 moe.schedule=overlapped moe.chunks=2
4 = fine bf16 parallel.expert=4
4 - fine bf16 parallel.tensor=2 parallel.expert=2
4 = fine bf16 parallel.tensor=2 parallel.expert=2 moe.schedule=s2
4 - gqa f32 parallel.expert=1
4 = gqa f32 parallel.expert=4
4 = gqa f32 parallel.tensor=2 parallel.expert=2 moe.schedule=s1 train.recompute=full
hosts = ted f32 parallel.expert=4
hosts = ted f32 parallel.expert=4 moe.schedule=overlapped moe.chunks=2 train.recompute=full
hosts - ted f32 parallel.expert=2
hosts - ted f32 parallel.tensor=2 parallel.expert=2
hosts - gqa f32 parallel.expert=4
hosts = gqa f32 parallel.expert=4 train.recompute=full
hosts = gqa f32 parallel.tensor=2 parallel.expert=2 moe.schedule=s1
'
is_host() {
    case $1 in
    [124]) return 1 ;;
    *) return 0 ;;
    esac
}

# run PLACE COMMAND…: ranks of a job stand on the cores in turn.
run() {
    local place=$1
    local start=(mpirun --oversubscribe --allow-run-as-root --bind-to none -n "$place")
    shift
    ! is_host "$place" || start=(bench/hosts.sh mpirun 1)
    # shellcheck disable=SC2016,SC2086
    ${FRONT:-} "${start[@]}" sh -c \
        'exec taskset -c $((OMPI_COMM_WORLD_RANK % $(nproc))) "$@"' sh "$@"
    sleep "${PAUSE:-0}"
}

# The first number of a key in a JSON object.
number() {
    grep -o "\"$1\": *[0-9.e+-]*" | head -1 | sed 's/.*: *//'
}

plan() {
    local place=$1
    shift
    local ranks=$place
    ! is_host "$place" || ranks=4
    "$bin/trident" plan "$dir/c.yaml" --ranks "$ranks" --cluster "$dir/$place.yaml" "$@" \
        2>>"$dir/log"
}

configure() {
    local shape=$1 precision=$2
    shift 2
    "$bin/step" "$shape" --precision "$precision" --config moe.router=balanced "$@" >"$dir/c.yaml"
}

# measure PLACE MARK SHAPE PRECISION [KEY…]: a line of $dir/cells. Steps are not run again.
measure() {
    local place=$1 mark=$2 shape=$3 precision=$4 way predicted measured
    shift 4
    configure "$shape" "$precision" "$@"
    way=$(cksum <"$dir/c.yaml" | tr ' ' '.')
    predicted=$(plan "$place" --json | tee -a "$dir/plans.jsonl" | number step_ms)
    measured=$(grep "^$place	$way	" "$dir/steps" | cut -f3)
    if [ -z "$measured" ]; then
        measured=$(run "$place" "$bin/step" "$shape" --precision "$precision" --threads 1 \
            --json --no-ceiling --steps "$steps" --warm 1 moe.router=balanced "$@" \
            2>>"$dir/log" | tee -a "$dir/steps.jsonl" | number step_ms)
        printf '%s\t%s\t%s\n' "$place" "$way" "$measured" >>"$dir/steps"
    fi
    printf '%s\t%s\t%s %s\t%s\t%s\t%s\n' "$place" "$mark" "$shape" "$precision" \
        "${*:-parallel.expert=1}" "$predicted" "$measured" | tee -a "$dir/cells" >&2
}

# The keys of what `auto` takes of the config, from the line that says it.
chosen() {
    local line keys=()
    line=$(plan "$1" parallel=auto moe.schedule=auto moe.chunks=auto | sed -n 's/^auto: //p')
    line=${line%%: predicted*}
    [[ $line =~ tensor\ ([0-9]+) ]] && keys+=("parallel.tensor=${BASH_REMATCH[1]}")
    [[ $line =~ grid\ ([0-9]+)\ x\ ([0-9]+)\ x\ ([0-9]+) ]] &&
        keys+=("parallel.tensor_grid=[${BASH_REMATCH[1]},${BASH_REMATCH[2]},${BASH_REMATCH[3]}]")
    [[ $line =~ x\ expert\ ([0-9]+) ]] && keys+=("parallel.expert=${BASH_REMATCH[1]}")
    [[ $line =~ expert_tensor\ ([0-9]+) ]] && keys+=("parallel.expert_tensor=${BASH_REMATCH[1]}")
    [[ $line =~ schedule\ ([a-z0-9_]+) ]] && keys+=("moe.schedule=${BASH_REMATCH[1]}")
    [[ $line =~ ([0-9]+)\ chunk ]] && keys+=("moe.chunks=${BASH_REMATCH[1]}")
    [[ $line =~ ([0-9]+)\ backward ]] && keys+=("moe.chunks_backward=${BASH_REMATCH[1]}")
    echo "${keys[*]}"
}

calibrate() {
    local place=$1 more=()
    if is_host "$place"; then
        [ ! -e "$dir/4.yaml" ] || more=(--kernels "$dir/4.yaml") # the same ranks on these cores
        if [ -z "$up" ]; then
            scripts/setup.sh --bench
            bench/hosts.sh up 4
            up=1
        fi
        bench/hosts.sh limit "$place"
    fi
    [ -e "$dir/$place.yaml" ] || run "$place" "$bin/trident" calibrate --threads 1 \
        "${more[@]}" --out "$dir/$place.yaml" >&2
}

touch "$dir/steps"
: >"$dir/cells"
: >"$dir/plans.jsonl"
for place in "${places[@]}"; do
    name=$place
    ! is_host "$place" || name=hosts
    calibrate "$place"
    while read -r -a words; do
        measure "$place" "${words[@]:1}" </dev/null
    done < <(grep "^$name " <<<"$cells")
    [ "$place" != 1 ] || continue
    while read -r shape precision; do
        configure "$shape" "$precision"
        read -r -a words <<<"$(chosen "$place")"
        measure "$place" auto "$shape" "$precision" "${words[@]}" </dev/null
    done < <(grep "^$name " <<<"$cells" | cut -d' ' -f3,4 | sort -u)
done

awk -F'\t' '
    function off(predicted, measured) { return 100 * (predicted / measured - 1) }
    BEGIN {
        print "| ranks | shape | keys | predicted ms | measured ms | off |"
        print "| --- | --- | --- | --- | --- | --- |"
    }
    {
        place = $1 ~ /^[124]$/ ? $1 : "4 hosts, " $1
        group = place " | " $3
    }
    $2 == "=" {
        printf "| %s | %s | `%s` | %.1f | %.1f | %+.0f %% |\n", place, $3, $4, $5, $6, off($5, $6)
        size = off($5, $6) < 0 ? -off($5, $6) : off($5, $6)
        cells++
        ten += size <= 10
        twenty += size <= 20
    }
    $4 !~ /recompute=full/ && (!(group in best) || $6 < best[group]) {
        best[group] = $6
        way[group] = $4
    }
    $2 == "auto" { groups[++count] = group; picked[group] = $6; told[group] = $5; pick[group] = $4 }
    END {
        printf "\n%d of %d within 10 %%, %d within 20 %%.\n", ten, cells, twenty
        print "\n| ranks | shape | `auto` takes | predicted | measured | fastest measured | of it |"
        print "| --- | --- | --- | --- | --- | --- | --- |"
        for (i = 1; i <= count; i++) {
            group = groups[i]
            good += picked[group] <= 1.05 * best[group]
            printf "| %s | `%s` | %.1f | %.1f | `%s` %.1f | %.2f |\n", group, pick[group],
                told[group], picked[group], way[group], best[group], picked[group] / best[group]
        }
        printf "\n`auto` is within 5 %% of the fastest measured in %d of %d cases.\n", good, count
    }' "$dir/cells"
