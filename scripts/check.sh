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
# JUnit files: build/check/.
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

# build NAME CONFIGURE-ARGUMENT…: into build/NAME, $target or all of it
build() {
    local name=$1 log=$reports/$1.build.log
    shift
    printf '\n== %s: build\n' "$name"
    if ! { cmake "$@" && cmake --build "build/$name" -j "$jobs" --target "${target-all}"; } \
        >"$log" 2>&1; then
        # clang-tidy and the compilers name the culprit well before ninja's last words.
        grep -E 'error:|FAILED:|CMake Error' "$log" | head -n 40
        tail -n 20 "$log"
        return 1
    fi
}

# run NAME CTEST-ARGUMENT…: the tests in build/NAME; the caller set begin before it built
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

# preset NAME CTEST-ARGUMENT…
preset() {
    local name=$1 begin=$SECONDS
    if build "$name" --preset "$name"; then
        run "$@"
    else
        failures+=$(printf '\n%s: the build' "$name")
        record "$name" 0 1 0 $((SECONDS - begin))
    fi
}

# The debug build with unit tests run inside Valgrind, but for those that start the program. CMake's
# hook for running programs of another machine is what puts it in front of them. Valgrind runs one
# thread at a time, so waiting threads must sleep, not spin.
valgrind_preset() {
    local begin=$SECONDS emulator
    emulator="valgrind;--quiet;--error-exitcode=9;--leak-check=full"
    emulator+=";--errors-for-leak-kinds=definite;--show-leak-kinds=definite"
    emulator+=";--suppressions=$PWD/scripts/valgrind.supp"
    if build valgrind --preset dev -B build/valgrind \
        "-DCMAKE_CROSSCOMPILING_EMULATOR=$emulator"; then
        OMP_WAIT_POLICY=passive run valgrind -L '^unit$' -LE '^(no-valgrind|program)$'
    else
        failures+=$(printf '\nvalgrind: the build')
        record valgrind 0 1 0 $((SECONDS - begin))
    fi
}

case $mode in
    quick)
        preset dev -L '^(unit|ranks2)$'
        ;;
    default)
        preset release
        preset asan -L '^(unit|ranks2)$' -LE '^once$'
        valgrind_preset
        preset mpich -L '^ranks[12]$' -LE '^once$'
        target=trident_races preset tsan -L '^races$'
        ;;
    full)
        for name in release dev asan mpich tidy; do
            preset "$name"
        done
        preset tsan -L '^(races|threads2)$'
        valgrind_preset
        ;;
esac

printf '\n%s\n' "$table"
if [ "$failed" -gt 0 ]; then
    printf '\nfailed:%s\n' "$failures"
fi
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
