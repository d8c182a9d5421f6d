#!/bin/bash
# scripts/setup.sh among programs that only say what they were asked: setup_test.sh SCRATCH-FOLDER
# shellcheck disable=SC2016 # the stubs expand for themselves
set -eu
setup=$(cd "$(dirname "$0")/../../scripts" && pwd)/setup.sh
scratch=$1/setup
rm -rf "$scratch"
mkdir -p "$scratch"

# stub NAME BODY: a program of that name before all others
stub() {
    printf '#!/bin/bash\n%s\n' "$2" >"$scratch/$1"
    chmod +x "$scratch/$1"
}

# expect STATUS PATTERN ARGUMENT…: runs setup without a terminal; PATTERN must be in what it says,
# and an empty one means that it must say nothing
expect() {
    local wanted=$1 pattern=$2 status=0 right=0
    shift 2
    PATH=$scratch:$PATH "$setup" "$@" </dev/null >"$scratch/said" 2>&1 || status=$?
    if [ -n "$pattern" ]; then
        grep -q -- "$pattern" "$scratch/said" || right=1
    elif [ -s "$scratch/said" ]; then
        right=1
    fi
    if [ "$status" -ne "$wanted" ] || [ "$right" -ne 0 ]; then
        echo "setup.sh $*: status $status, wanted $wanted and \"$pattern\"; it said:"
        cat "$scratch/said"
        exit 1
    fi
}

stub apt-get 'echo "apt-get $*"'
stub sudo 'echo "sudo $*"'

stub dpkg-query 'echo installed'
stub id 'echo 1000'
expect 0 '' --check --demo

stub dpkg-query '[ "${!#}" = libyaml-dev ] || echo installed'
expect 2 '^ *sudo apt-get update && sudo apt-get install -y --no-install-recommends libyaml-dev$'
if grep -q '^sudo\|^apt-get' "$scratch/said"; then
    echo "setup.sh used sudo without being told to"
    exit 1
fi

stub id 'echo 0'
expect 0 '^apt-get update'
expect 0 '^apt-get install -y --no-install-recommends libyaml-dev '
stub apt-get '[ "$1" = update ]'
expect 3 'could not install libyaml-dev'
expect 2 usage --nonsense
