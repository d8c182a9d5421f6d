#!/bin/bash
# PBS Professional or OpenPBS: qsub -v CONFIG=CONFIG.yaml pbs_mpirun.sh. PBS sends SIGTERM, at the
# time limit and on qdel, and SIGKILL after the queue's kill_delay; `qsig -s USR1 JOB` asks for a
# save. `qrerun` is what an own job may do of `scontrol requeue`; where it may not, the last lines
# send the script in anew.
#PBS -N trident
#PBS -l select=1:ncpus=4:mpiprocs=4:ompthreads=1
#PBS -l walltime=24:00:00
#PBS -r y
#PBS -j oe
#PBS -k oed

cd "$PBS_O_WORKDIR" || exit 2
export OMPI_MCA_odls_base_sigkill_timeout=10

# An Open MPI built with PBS's library (tm) knows the nodes by itself; Debian's reads this file.
mpirun --hostfile "$PBS_NODEFILE" --bind-to core trident train "$CONFIG" &
mpirun=$!
trap 'kill -USR1 $mpirun' USR1 TERM
# A trapped signal ends a wait; bash remembers the status of what has ended.
wait $mpirun
while kill -0 $mpirun 2>/dev/null; do
    wait $mpirun
done
wait $mpirun
status=$?
if [ $status -eq 85 ]; then
    qrerun "$PBS_JOBID" 2>/dev/null || qsub -v CONFIG="$CONFIG" "$0"
fi
exit $status
