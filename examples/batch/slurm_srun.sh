#!/bin/bash
# Slurm starts the ranks: sbatch slurm_srun.sh CONFIG.yaml [key=value …]
# Two minutes before the time limit, or on `scancel --signal=USR1 JOB`, the run saves and ends with
# status 85; the job queues again and the same command goes on from there.
#SBATCH --job-name=trident
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# srun takes the cores of a rank from here; it does not ask sbatch.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=$SRUN_CPUS_PER_TASK

srun --mpi=pmix --cpu-bind=cores trident train "$@"
status=$?
if [ $status -eq 85 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
