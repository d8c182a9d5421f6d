#!/bin/bash
# Open MPI's mpirun starts the ranks that Slurm has given: sbatch slurm_mpirun.sh CONFIG.yaml
# [key=value …]. To stop it before its time: scancel --batch --signal=USR1 JOB. The signal goes to
# this script (B:), which hands it to mpirun; mpirun hands it to the ranks and ends with their 85.
#SBATCH --job-name=trident
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# mpirun kills its ranks a second after it has handed a SIGTERM on (scancel, the time limit); so
# they have ten. More would be waited for twice where ranks have ended with 85, too.
export OMPI_MCA_odls_base_sigkill_timeout=10

: "${MPIRUN_BINDING:=--map-by slot:PE=$OMP_NUM_THREADS --bind-to core}"

# shellcheck disable=SC2086 # options are words
mpirun $MPIRUN_BINDING trident train "$@" &
mpirun=$!
trap 'kill -USR1 $mpirun' USR1
trap 'kill -TERM $mpirun' TERM
# A trapped signal ends a wait; bash remembers the status of what has ended.
wait $mpirun
while kill -0 $mpirun 2>/dev/null; do
    wait $mpirun
done
wait $mpirun
status=$?
if [ $status -eq 85 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
