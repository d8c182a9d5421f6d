#!/bin/bash
# tools/slurm/check.sh [TRIDENT [FOLDER]]: the batch scripts of examples/batch/ in a real Slurm of
# one machine (one_machine.sh, as root): four ranks in one job, signalled in the middle, requeued,
# finished; its weights and losses must be, digit by digit, those of a run that nobody stopped. One
# minute on two idle cores. Ends with "N checks passed", or the first that failed.
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$tools/../.." && pwd)
trident=$(realpath "${1:-$source/build/release/bin/trident}")
work=$(realpath "$(mktemp -d "${2:-/tmp}/slurm_check.XXXXXX")")
chmod 755 "$work" # munged wants a socket that all may reach
passed=0

finish() {
    status=$?
    "$tools/one_machine.sh" stop "$work/slurm" >/dev/null 2>&1 || true
    if [ $status -eq 0 ]; then rm -rf "$work"; else echo "see $work" >&2; fi
}
trap finish EXIT
trap 'exit 143' TERM INT

fail() {
    echo "slurm check: $*" >&2
    tail -n 20 ./*.log >&2 || true
    exit 1
}

pass() {
    passed=$((passed + 1))
    echo "passed: $*"
}

# SECONDS COMMAND…: until it succeeds
patience() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

mkdir "$work/bin" "$work/job"
ln -s "$trident" "$work/bin/trident"
cd "$work/job"
# As root on one machine, on fewer cores than ranks.
export PATH=$work/bin:$PATH OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MPIRUN_BINDING="--oversubscribe --bind-to none"
# What this machine's shell has of Slurm is not of this one.
unset "${!SLURM_@}" "${!SBATCH_@}"

trident tokenize --tokenizer byte --out tokens --valid 0.05 \
    "$source/examples/data/tinyshakespeare.txt" >tokenize.log
cat >c.yaml <<'END'
model: {num_layers: 1, hidden_size: 128, num_heads: 4}
moe: {num_experts: 4, top_k: 2, intermediate_size: 256}
parallel: {tensor: 2, expert: 2}
data: {train: "tokens/train_*.bin", sequence_length: 64}
train: {global_batch: 8, steps: 200, warmup_steps: 10}
checkpoint: {every: 1000}
threads: 1
END

digest() { trident inspect "$1" --json | sed -n 's/.*"digest": *"\([^"]*\)".*/\1/p'; }
# "STEP LOSS" of every step line
losses() { sed -n 's/.*"step": *\([0-9]*\),.*"loss": *\([^,}]*\).*/\1 \2/p' "$1/metrics.jsonl"; }
steps_done() { [ "$(wc -l 2>/dev/null <"$1/metrics.jsonl")" -ge "$2" ] 2>/dev/null; }
state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
is_over() { case $(state "$1") in COMPLETED | FAILED | TIMEOUT | CANCELLED) ;; *) false ;; esac; }
restarts() { scontrol show job "$1" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }

# same_as_alone RUN: no step is lacking or double, and each has the digits of the run alone
same_as_alone() {
    losses runs/alone >alone.losses
    [ "$(wc -l <alone.losses)" -eq 200 ] || fail "the run alone has $(wc -l <alone.losses) steps"
    losses "$1" >stopped.losses
    cmp alone.losses stopped.losses || fail "$1 has other losses than the run alone"
    [ -n "$(digest "$1")" ] || fail "$1 has no checkpoint"
    [ "$(digest "$1")" = "$(digest runs/alone)" ] || fail "$1 has other weights than the run alone"
}

echo "== a run that nobody stops: 4 ranks, threads of one process"
trident train c.yaml --ranks 4 run_dir=runs/alone >alone.log 2>&1 || fail "it ended with $?"

"$tools/one_machine.sh" start "$work/slurm" 8 >/dev/null
# shellcheck disable=SC1091 # one_machine.sh has written it
. "$work/slurm/env"
sinfo --version

echo "== srun"
srun --mpi=pmix -n 4 trident train c.yaml run_dir=runs/srun train.steps=2 train.warmup_steps=0 \
    >srun.log 2>&1 ||
    fail "srun ended with $?"
grep -q '4 ranks = tensor 2 x expert 2 x data 1' srun.log || fail "not one job of 4 ranks"
pass "srun --mpi=pmix -n 4: $(grep -o 'layout .*' srun.log | head -n 1)"
status=0
srun --mpi=pmi2 -n 4 trident train c.yaml run_dir=runs/pmi2 >pmi2.log 2>&1 || status=$?
[ $status -ne 0 ] || fail "srun --mpi=pmi2 ended with 0"
[ ! -e runs/pmi2/metrics.jsonl ] || fail "pmi2 trained"
pass "srun --mpi=pmi2, which Debian's Open MPI was not built with: status $status, nothing trained"
status=0
srun --mpi=pmix -n 4 trident train c.yaml parallel.tensor=3 >wrong.log 2>&1 || status=$?
[ $status -eq 2 ] || fail "a wrong layout: status $status"
[ "$(grep -c 'trident: error' wrong.log)" -eq 1 ] || fail "a wrong layout: more than one line"
pass "a layout that cannot be: one line, status 2"

# stopped NAME SCRIPT SIGNAL-OPTION…: the script's job is signalled in the middle and comes back
stopped() {
    local name=$1 script=$2 job
    shift 2
    echo "== $script, scancel $*"
    job=$(sbatch --parsable --output="$name.job.log" "$source/examples/batch/$script" c.yaml \
        run_dir="runs/$name")
    patience 300 steps_done "runs/$name" 20 || fail "$name does not get to step 20"
    scancel "$@" "$job"
    patience 300 is_over "$job" || fail "$name: $(state "$job")"
    [ "$(state "$job")" = COMPLETED ] || fail "$name: $(state "$job")"
    [ "$(restarts "$job")" = 1 ] || fail "$name was requeued $(restarts "$job") times"
    grep -q 'continuing from .*step_' "$name.job.log" || fail "$name did not continue"
    same_as_alone "runs/$name"
    pass "job $job: $(grep -o 'continuing from.*' "$name.job.log"), COMPLETED; the losses of its" \
        "200 steps and digest $(digest "runs/$name") are those of the run alone"
}

stopped sbatch slurm_srun.sh --signal=USR1
stopped mpirun slurm_mpirun.sh --batch --signal=USR1

echo "== scancel without a signal"
job=$(sbatch --parsable --output=cancel.job.log "$source/examples/batch/slurm_srun.sh" c.yaml \
    run_dir=runs/cancel)
patience 300 steps_done runs/cancel 20 || fail "it does not get to step 20"
scancel "$job"
patience 60 is_over "$job" || fail "it is $(state "$job")"
[ "$(state "$job")" = CANCELLED ] || fail "it is $(state "$job")"
[ -n "$(digest runs/cancel)" ] || fail "nothing was saved"
pass "scancel $job: saved ($(ls runs/cancel/checkpoints)), CANCELLED, not requeued"

echo "$passed checks passed"
