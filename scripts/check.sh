#!/bin/bash
# Builds and runs the tests; ends with one line, "N passed, N failed".
#
#   scripts/check.sh           every test once (release); unit and 2-rank tests under
#                              AddressSanitizer with UBSan; unit tests under Valgrind; 1- and 2-rank
#                              tests under MPICH; ranks that are threads, a test or two of each
#                              kind, under ThreadSanitizer
#   scripts/check.sh --quick   unit and 2-rank tests of the debug build
#   scripts/check.sh --full    every test in every preset, clang-tidy included, and under Valgrind;
#                              all tests of two ranks that are threads under ThreadSanitizer
#
# A build that fails counts as one failed test. What failed is named before the last line. Logs and
# JUnit files: build/check/. Each build but the first goes on beside the tests before it; a preset's
# seconds are what it had to itself: the rest of its build, then its tests.
set -u
cd "$(dirname "$0")/.." || exit 3

mode=default
case "${1-}" in
    "") ;;
    --quick) mode=quick ;;
    --full) mode=full ;;
    *)
        echo "usage: scripts/check.sh [--quick | --full]" >&2
        exit 2
        ;;
esac

scripts/setup.sh --check || exit

reports=$PWD/build/check
rm -rf "$reports"
mkdir -p "$reports"
jobs=$(nproc)
# Threads that wait sleep: those that spin take the cores from tests beside them, and Valgrind runs
# one thread at a time.
export OMP_WAIT_POLICY=passive
every=${CHECK_EVERY:-30} # seconds between two lines about a build
emulator="valgrind;--quiet;--error-exitcode=9;--leak-check=full"
emulator+=";--errors-for-leak-kinds=definite;--show-leak-kinds=definite"
emulator+=";--suppressions=$PWD/scripts/valgrind.supp"
passed=0
failed=0
failures=""
table=$(printf '%-10s %8s %8s %8s %8s' preset passed failed skipped seconds)

# record NAME PASSED FAILED SKIPPED SECONDS
record() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    table+=$(printf '\n%-10s %8d %8d %8d %8d' "$@")
}

# How many lines of a JUnit file (which escapes quotes inside test output) have this in them.
count() {
    grep -c "$2" "$1" 2>/dev/null || true
}

# The names of a JUnit file's tests that neither passed nor skipped themselves.
failed_in() {
    awk -F '"' '
        function flush() { if (name != "" && !good) print name; name = "" }
        /<testcase / { flush(); name = $2; good = / status="run"/ }
        /<skipped message="SKIP_/ { good = 1 }
        END { flush() }' "$1"
}

# start NAME: its build, in the background, in a process group of its own, which ends with this
# script. Beside tests it takes what they leave: they wait for each other and for the clock.
start() {
    local name=$1 configure=(--preset "$1") targets
    # Valgrind runs unit tests, but for those that start the program. CMake's hook for running
    # programs of another machine is what puts it in front of them.
    if [ "$name" = valgrind ]; then
        configure=(--preset dev -B build/valgrind "-DCMAKE_C_FLAGS_DEBUG=-g1 -Og"
            "-DCMAKE_CROSSCOMPILING_EMULATOR=$emulator")
    fi
    read -ra targets <<<"${targets_of[$name]-all}"
    set -m
    { nice -n 19 cmake "${configure[@]}" &&
        nice -n 19 cmake --build "build/$name" -j "$jobs" --target "${targets[@]}"; } \
        >"$reports/$name.build.log" 2>&1 </dev/null &
    building=$!
    set +m
}
building=""
trap '[ -z "$building" ] || kill -- "-$building" 2>/dev/null' EXIT

# finish NAME: until what start began has ended; says now and then how far it is
finish() {
    local log=$reports/$1.build.log waited=0 far status=0
    printf '\n== %s: build\n' "$1"
    while kill -0 "$building" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        if [ $((waited % (5 * every))) -eq 0 ]; then
            far=$(grep -Eo '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 1)
            printf '   %s after %d s\n' "${far:-configures}" $((waited / 5))
        fi
    done
    wait "$building" || status=$?
    building=""
    if [ "$status" -ne 0 ]; then
        # clang-tidy and the compilers name the culprit well before ninja's last words.
        grep -E 'error:|FAILED:|CMake Error' "$log" | head -n 40
        tail -n 20 "$log"
    fi
    return "$status"
}

# run NAME CTEST-ARGUMENT…: the tests in build/NAME, which began at second `begin`
run() {
    local name=$1 report=$reports/$1.xml status=0 good bad skipped test
    # Tests of the program wait more than they compute; MPICH's ranks spin while they wait.
    local at_once=$((2 * jobs))
    if [ "$name" = mpich ]; then at_once=$jobs; fi
    shift
    printf '\n== %s: tests\n' "$name"
    : >"$report"
    ctest --test-dir "build/$name" -j "$at_once" --output-on-failure --no-tests=error \
        --output-junit "$report" "$@" || status=$?
    good=$(count "$report" '<testcase .*status="run"')
    # A test may skip itself; one that could not be started is "notrun" as well, and has failed.
    skipped=$(count "$report" '<skipped message="SKIP_')
    bad=$(($(count "$report" '<testcase ') - good - skipped))
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
        failures+=$(printf '\n%s: ctest itself failed, or found no tests' "$name")
    fi
    while read -r test; do
        failures+=$(printf '\n%s: %s' "$name" "$test")
    done < <(failed_in "$report")
    record "$name" "$good" "$bad" "$skipped" $((SECONDS - begin))
}

# presets NAME…: of each the build, then the tests, beside which the next is built.
presets() {
    local name begin tests status
    start "$1"
    while [ $# -gt 0 ]; do
        name=$1
        begin=$SECONDS
        shift
        read -ra tests <<<"${tests_of[$name]-}"
        status=0
        finish "$name" || status=$?
        [ $# -eq 0 ] || start "$1"
        if [ "$status" -ne 0 ]; then
            failures+=$(printf '\n%s: the build' "$name")
            record "$name" 0 1 0 $((SECONDS - begin))
        else
            run "$name" "${tests[@]}"
        fi
    done
}

# What is built where it is not all, and the tests of all that are run.
declare -A targets_of=([valgrind]=trident_tests_unit)
declare -A tests_of=([valgrind]="-L ^unit$ -LE ^(no-valgrind|program)$")
case $mode in
    quick)
        tests_of[dev]="-L ^(unit|ranks2)$"
        presets dev
        ;;
    default)
        # More threads, steady memory and stopped ranks show a sanitizer nothing more, and what the
        # program does with files and words is not MPI's.
        tests_of[asan]="-L ^(unit|ranks2)$ -LE ^once$"
        tests_of[asan]+=" -E _threads_3$|^steady_2$|^edges_watchdog_2$"
        tests_of[mpich]="-L ^ranks[12]$ -LE ^once$"
        tests_of[mpich]+=" -E ^cli_(init|generate|lora|commands|sets)_2$"
        tests_of[mpich]+="|^edges_(files|damage|paths|tokenizer|tokens|headerless|evaluation)_2$"
        tests_of[tsan]="-L ^races$"
        targets_of[mpich]="trident_tests_ranks1 trident_tests_ranks2"
        targets_of[tsan]=trident_tests_races
        # MPICH last, no build beside it: a test of stopped ranks failed there once in three times.
        presets release asan valgrind tsan mpich
        ;;
    full)
        tests_of[tsan]="-L ^(races|threads2)$"
        presets release dev asan mpich tidy tsan valgrind
        ;;
esac

printf '\n%s\n' "$table"
if [ "$failed" -gt 0 ]; then
    printf '\nfailed:%s\n' "$failures"
fi
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
