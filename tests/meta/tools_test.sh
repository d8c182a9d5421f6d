#!/bin/bash
# What the build and the tools refuse before they do anything: tools_test.sh SCRATCH-FOLDER
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$1/tools
rm -rf "$scratch"
mkdir -p "$scratch/theirs"

# expect STATUS PATTERN COMMAND…
expect() {
    local wanted=$1 pattern=$2 status=0
    shift 2
    "$@" </dev/null >"$scratch/said" 2>&1 || status=$?
    if [ "$status" -ne "$wanted" ] || ! grep -q -- "$pattern" "$scratch/said"; then
        echo "$*: status $status, wanted $wanted and \"$pattern\"; it said:"
        cat "$scratch/said"
        exit 1
    fi
}

# A folder that the check of GGUF files has not made is not removed.
echo mine >"$scratch/theirs/file"
expect 2 'was not made by it: not removed' "$root/tools/gguf/check.sh" "$scratch/theirs"
[ "$(cat "$scratch/theirs/file")" = mine ]

# mpi ASKED OPEN: cmake/check_mpi.cmake for one MPI where there is another
mpi() {
    cmake -DTRIDENT_MPI="$1" -DTRIDENT_MPI_IS_OPEN_MPI="$2" -DMPI_C_COMPILER=/usr/bin/mpicc \
        -P "$root/cmake/check_mpi.cmake" && echo fine
}
expect 1 'TRIDENT_MPI is mpich, and /usr/bin/mpicc is Open MPI' mpi mpich 1
expect 1 "TRIDENT_MPI is 'intel', expected openmpi or mpich" mpi intel ''
expect 0 'is of another MPI' mpi openmpi ''
expect 0 fine mpi openmpi 1
expect 0 fine mpi mpich ''
