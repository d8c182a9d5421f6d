#!/bin/bash
# scripts/check.sh on a project of its own: it must count right and must not hide a failure.
# check_test.sh SCRATCH-FOLDER
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
project=$1/check
rm -rf "$project"
mkdir -p "$project/scripts"
cp "$root/scripts/check.sh" "$project/scripts"
cp "$root/CMakePresets.json" "$project"
printf '#!/bin/bash\n' >"$project/scripts/setup.sh"
chmod +x "$project/scripts/setup.sh"

# expect STATUS LAST-LINE FAILED…: the project's CMakeLists.txt is standard input; FAILED are the
# last lines before the last one
expect() {
    local status=0 wanted=""
    [ $# -lt 3 ] || wanted=$(printf 'failed:'; printf '\n%s' "${@:3}")
    cat >"$project/CMakeLists.txt"
    "$project/scripts/check.sh" --quick >"$project/said" 2>&1 || status=$?
    if [ "$status" -ne "$1" ] || [ "$(tail -n 1 "$project/said")" != "$2" ] ||
        [ "$(sed -n '/^failed:$/,/^$/p' "$project/said")" != "$wanted" ]; then
        echo "check.sh: status $status, wanted $1 and \"$2\" after \"$wanted\"; it said:"
        cat "$project/said"
        exit 1
    fi
}

head='cmake_minimum_required(VERSION 3.25)
project(toy NONE)
enable_testing()'

expect 0 "2 passed, 0 failed" <<END
$head
add_test(NAME one COMMAND true)
add_test(NAME two COMMAND true)
add_test(NAME skips_itself COMMAND sh -c "exit 77")
add_test(NAME not_asked_for COMMAND false)
set_tests_properties(skips_itself PROPERTIES SKIP_RETURN_CODE 77)
set_tests_properties(one skips_itself PROPERTIES LABELS unit)
set_tests_properties(two PROPERTIES LABELS "mpi;ranks2")
set_tests_properties(not_asked_for PROPERTIES LABELS "mpi;ranks20")
END

expect 1 "1 passed, 3 failed" "dev: fails" "dev: hangs" "dev: cannot_start" <<END
$head
add_test(NAME passes COMMAND true)
add_test(NAME fails COMMAND false)
add_test(NAME hangs COMMAND sleep 9)
add_test(NAME cannot_start COMMAND /nonexistent/program)
set_tests_properties(hangs PROPERTIES TIMEOUT 1)
set_tests_properties(passes fails hangs cannot_start PROPERTIES LABELS unit)
END

expect 1 "0 passed, 1 failed" "dev: ctest itself failed, or found no tests" <<END
$head
END

expect 1 "0 passed, 1 failed" "dev: the build" <<END
$head
add_custom_target(broken ALL COMMAND false)
add_test(NAME passes COMMAND true)
set_tests_properties(passes PROPERTIES LABELS unit)
END

# A long build says how far it is.
export CHECK_EVERY=1
expect 0 "1 passed, 0 failed" <<END
$head
add_custom_target(slow ALL COMMAND sleep 3)
add_test(NAME passes COMMAND true)
set_tests_properties(passes PROPERTIES LABELS unit)
END
grep -q ' after [12] s$' "$project/said" || {
    echo "check.sh said nothing during a build:"
    cat "$project/said"
    exit 1
}
