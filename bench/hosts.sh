#!/bin/bash
# Several hosts on one machine: network namespaces joined by a bridge, every link limited to a rate
# both ways. Each host has its own name, network and shared memory files, so Open MPI takes it for a
# machine: TCP between hosts, shared memory within. (After the hosts.sh of the project's reference
# material.)
#
#   bench/hosts.sh up N [RATE]            N hosts; RATE is tc's (1gbit, 500mbit), or unlimited
#   bench/hosts.sh limit RATE             another rate for every link
#   bench/hosts.sh measure                Mbit/s that one link carries
#   bench/hosts.sh sent                   bytes that the hosts have sent to each other, all together
#   bench/hosts.sh mpirun R ARGUMENT…     mpirun with R ranks on each host
#   bench/hosts.sh down
#
# Needs root, and what scripts/setup.sh --bench installs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")

bridge=trident0
network=10.77.0

names() {
    ip netns list | sed -n 's/^trident\([0-9][0-9]*\).*/\1/p' | sort -n
}

# bucket RATE DEVICE [COMMAND-PREFIX…]: a token bucket in front of one end of a link. Its queue
# holds a second's worth of data: like a cluster's network, the link slows its senders down and
# drops nothing.
bucket() {
    local rate=$1 device=$2
    shift 2
    "$@" tc qdisc del dev "$device" root 2>/dev/null || true
    if [ "$rate" != unlimited ]; then
        "$@" tc qdisc add dev "$device" root tbf rate "$rate" burst 256kb latency 1s
    fi
}

limit() {
    local host
    for host in $(names); do
        bucket "$1" eth0 ip netns exec "trident$host"
        bucket "$1" "$bridge-$host"
    done
}

up() {
    local host
    ip link add "$bridge" type bridge
    ip addr add "$network.1/24" dev "$bridge"
    ip link set "$bridge" up
    for host in $(seq 1 "$1"); do
        ip netns add "trident$host"
        ip link add "$bridge-$host" type veth peer name eth0 netns "trident$host"
        ip link set "$bridge-$host" master "$bridge" up
        ip -n "trident$host" addr add "$network.1$host/24" dev eth0
        ip -n "trident$host" link set eth0 up
        ip -n "trident$host" link set lo up
    done
    limit "$2"
}

down() {
    local host
    for host in $(names); do
        ip netns del "trident$host"
    done
    ip link del "$bridge" 2>/dev/null || true
}

measure() {
    local server
    ip netns exec trident1 iperf3 -s -1 >/dev/null &
    server=$!
    sleep 0.3
    ip netns exec trident2 iperf3 -c "$network.11" -t 2 -O 1 -f m |
        sed -n 's/.* \([0-9.]*\) Mbits\/sec.*receiver/\1/p'
    wait "$server"
}

sent() {
    cat /sys/class/net/"$bridge"-*/statistics/rx_bytes |
        awk '{sum += $1} END {printf "%.0f\n", sum}'
}

# What mpirun calls in the place of ssh: HOST COMMAND…
start() {
    local host=${1##"$network.1"}
    shift
    # Its own host name, or the shared memory files of two hosts collide.
    exec ip netns exec "trident$host" unshare --uts /bin/sh -c "hostname trident$host; $*"
}

# Waiting ranks yield: mpirun cannot see that all the hosts share one machine's cores.
run() {
    local ranks=$1 list='' count=0 host
    shift
    for host in $(names); do
        list+=,$network.1$host:$ranks
        count=$((count + ranks))
    done
    agent=$(mktemp) # mpirun wants one program without arguments
    trap 'rm -f "$agent"' EXIT
    printf '#!/bin/sh\nexec "%s" start "$@"\n' "$here" >"$agent"
    chmod +x "$agent"
    mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
        --mca plm_rsh_agent "$agent" --mca plm_rsh_no_tree_spawn 1 \
        --mca oob_tcp_if_include "$network.0/24" --mca btl_tcp_if_include "$network.0/24" \
        --mca pml ob1 --mca btl self,vader,tcp --host "${list#,}" -np "$count" "$@"
}

command=${1:-}
shift || true
case $command in
    up) up "$1" "${2:-unlimited}" ;;
    limit) limit "$1" ;;
    measure) measure ;;
    sent) sent ;;
    mpirun) run "$@" ;;
    start) start "$@" ;;
    down) down ;;
    *)
        sed -n '6,13p' "$here" >&2
        exit 2
        ;;
esac
