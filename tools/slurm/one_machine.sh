#!/bin/sh
# A Slurm of one machine, from Debian's packages (slurmctld slurmd slurm-client munge), run by hand
# as root, without systemd or cgroups. It listens on loopback only and keeps everything under one
# folder.
#
#   one_machine.sh start DIR [CPUS [NODES]]   then:  . DIR/env   (export SLURM_CONF=DIR/slurm.conf)
#   one_machine.sh stop DIR                   cancels its jobs, ends its daemons by pid
#
# CPUS (8) are those of each node, whatever the machine has. With NODES above 1 the machine plays
# several, n1, n2, ...: their ranks share /dev/shm, so Open MPI then needs OMPI_MCA_btl=self,tcp and
# OMPI_MCA_btl_tcp_if_include=lo (with vader two ranks of one local number overwrite each other),
# and mpirun OMPI_MCA_oob_tcp_if_include=lo. Lines of DIR/extra.conf, written beforehand, end up in
# slurm.conf (RequeueExit=85). Ports: from SLURM_ONE_PORT (27000) on.
set -eu

fail() { echo "one_machine.sh: error: $*" >&2; exit 1; }

# PID FILE NAME: the process in the pid file, if it is alive and is what we started.
alive()
{
    pid=$(cat "$1" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}

gone() { ! alive "$@"; }

# NAME COMMAND...: in the background, cut off from this shell, its pid in DIR/NAME.pid. --foreground
# daemons: the pid is then known at once and no pid file of theirs is waited for.
launch()
{
    name=$1
    shift
    setsid "$@" >"$dir/log/$name.out" 2>&1 </dev/null &
    echo $! >"$dir/$name.pid"
}

# SECONDS COMMAND...: until it succeeds.
patience()
{
    tries=$(($1 * 5))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.2
    done
}

queue_empty() { [ -z "$(squeue -h)" ]; }

nodes_ready() { [ "$(sinfo -h -t idle -o %D)" = "$nodes" ]; }

# The names of this many nodes.
node_names()
{
    if [ "$1" = 1 ]; then
        echo "$host"
    else
        seq -f 'n%.0f' "$1"
    fi
}

node_lines()
{
    number=0
    for node in $(node_names "$nodes"); do
        echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2 + number))" \
            "CPUs=$cpus State=UNKNOWN"
        number=$((number + 1))
    done
}

write_files()
{
    mkdir -p "$dir/log" "$dir/state" "$dir/munge"
    chmod 755 "$dir" "$dir/log" "$dir/state"
    for node in $(node_names "$nodes"); do
        mkdir -p "$dir/spool.$node" "$dir/tmp.$node" # slurmstepd's PMIx wants one for each node
        chmod 755 "$dir/spool.$node"
        chmod 1777 "$dir/tmp.$node"
    done
    # What earlier jobs were is forgotten: a changed list of nodes would not fit it.
    rm -rf "$dir/state" && mkdir "$dir/state"
    # munged refuses a key that others may read and a socket folder that others may not enter.
    chmod 711 "$dir/munge"
    if [ ! -s "$dir/munge/key" ]; then
        (umask 077 && head -c 128 /dev/urandom >"$dir/munge/key")
    fi
    cat >"$dir/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((port + 1))
SrunPortRange=$((port + 50))-$((port + 400))
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/log/slurmctld.own.pid
SlurmdPidFile=$dir/log/slurmd.%n.own.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true
TmpFS=$dir/tmp.%n
PlugStackConfig=$dir/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=pmix
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=300
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2
$(node_lines)
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
$(cat "$dir/extra.conf" 2>/dev/null || true)
END
    : >"$dir/plugstack.conf"
    cat >"$dir/env" <<END
export SLURM_CONF=$dir/slurm.conf
END
}

start()
{
    [ "$(id -u)" = 0 ] || fail "must be root: slurmd starts jobs as their users"
    for program in munged slurmctld slurmd sinfo; do
        command -v $program >/dev/null ||
            fail "no $program: apt-get install --no-install-recommends munge slurmctld slurmd" \
                "slurm-client"
    done
    for file in "$dir"/*.pid; do
        name=$(basename "$file" .pid)
        ! alive "$file" "${name%%.*}" || fail "$name of $dir runs already"
    done
    write_files
    launch munged munged --foreground --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
        --pid-file="$dir/munge/pid" --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed" \
        --num-threads=2
    patience 10 munge -n -S "$dir/munge/socket" || fail "munged: $(cat "$dir/log/munged.out")"
    launch slurmctld slurmctld -D -f "$dir/slurm.conf"
    patience 20 scontrol ping || fail "slurmctld: $(cat "$dir/log/slurmctld.out")"
    for node in $(node_names "$nodes"); do
        launch "slurmd.$node" slurmd -D -N "$node" -f "$dir/slurm.conf"
    done
    patience 20 nodes_ready || fail "slurmd: $(cat "$dir"/log/slurmd.*.out)"
    echo "export SLURM_CONF=$dir/slurm.conf"
}

stop()
{
    if alive "$dir/slurmctld.pid" slurmctld; then
        jobs=$(squeue -h -o %A || true)
        for job in $jobs; do
            scancel "$job" || true
        done
        # KillWait and a little: the slurmstepds end themselves once their jobs are gone.
        patience 20 queue_empty || true
    fi
    for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
        name=$(basename "$file" .pid)
        if alive "$file" "${name%%.*}"; then
            kill "$pid"
            patience 15 gone "$file" "${name%%.*}" || kill -9 "$pid"
        fi
        rm -f "$file"
    done
}

[ $# -ge 2 ] || fail "usage: one_machine.sh start DIR [CPUS [NODES]] | one_machine.sh stop DIR"
mkdir -p "$2"
dir=$(cd "$2" && pwd)
host=$(hostname -s)
cpus=${3:-8}
nodes=${4:-1}
port=${SLURM_ONE_PORT:-27000}
SLURM_CONF=$dir/slurm.conf
export SLURM_CONF
case $1 in
start) start ;;
stop) stop ;;
*) fail "start or stop, not $1" ;;
esac
