#!/bin/bash
# A Slurm cluster on one host, for tests: slurmctld and N slurmd "nodes" (2 unless told).
#   slurm_lab.sh up [N]      start (as root; Debian: slurmctld slurmd slurm-client munge)
#   slurm_lab.sh env         print the export that a shell needs (SLURM_CONF)
#   slurm_lab.sh down        end the daemons that it started, remove its folder
# It touches $SLURM_LAB (default <tmp>/slurm_lab) alone, and starts a munged on a socket and with a
# key of its own. Everything is ended by its pid. A watchdog takes the lab down after
# $SLURM_LAB_MAX_S seconds (1800 unless told).
set -u
LAB=${SLURM_LAB:-${TMPDIR:-/tmp}/slurm_lab}
NODES=${2:-2}
MAX_S=${SLURM_LAB_MAX_S:-1800}
FIRST_PORT=17001

configure() {
  local memory host ports
  memory=$(($(awk '/MemTotal/{print $2}' /proc/meminfo) / 1024 / NODES))
  host=$(hostname -s)
  ports=$FIRST_PORT
  [ "$NODES" = 1 ] || ports="[$FIRST_PORT-$((FIRST_PORT + NODES - 1))]"
  cat >"$LAB/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$LAB/munge.sock
CredType=cred/munge
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool.%n
SlurmctldPidFile=$LAB/slurmctld.pid
SlurmdPidFile=$LAB/slurmd.%n.pid
SlurmctldLogFile=$LAB/slurmctld.log
SlurmdLogFile=$LAB/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
MinJobAge=300
KillWait=3
NodeName=n[1-$NODES] NodeHostname=$host NodeAddr=127.0.0.1 Port=$ports CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP OverSubscribe=YES:4
CONF
}

start() {
  if [ -e "$LAB/slurmctld.pid" ]; then
    echo "already up: $LAB"
    exit 0
  fi
  mkdir -p "$LAB/state"
  chmod 755 "$LAB"
  configure
  head -c 1024 /dev/urandom >"$LAB/munge.key"
  chmod 400 "$LAB/munge.key"
  munged --force --socket="$LAB/munge.sock" --key-file="$LAB/munge.key" \
    --pid-file="$LAB/munged.pid" --log-file="$LAB/munged.log" --seed-file="$LAB/munge.seed" ||
    exit 1
  export SLURM_CONF=$LAB/slurm.conf
  slurmctld -f "$SLURM_CONF" || { tail "$LAB/slurmctld.log"; exit 1; }
  for node in $(seq "$NODES"); do
    mkdir -p "$LAB/spool.n$node"
    slurmd -f "$SLURM_CONF" -N "n$node" || exit 1
  done
  setsid bash -c 'sleep "$1"; exec "$2" down' _ "$MAX_S" "$(readlink -f "$0")" >/dev/null 2>&1 &
  echo $! >"$LAB/watchdog.pid"
  for _ in $(seq 60); do
    idle=$(sinfo -h -o %D -t idle 2>/dev/null | awk '{n += $1} END {print n + 0}')
    [ "$idle" = "$NODES" ] && break
    sleep .25
  done
  sinfo
  echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
  [ -d "$LAB" ] || exit 0
  export SLURM_CONF=$LAB/slurm.conf
  scancel --state=RUNNING --state=PENDING -u root 2>/dev/null
  for _ in $(seq 80); do # steps end by their daemons: those are ended after them
    [ -z "$(squeue -h 2>/dev/null)" ] && break
    sleep .25
  done
  for file in "$LAB"/slurmd.*.pid "$LAB/slurmctld.pid" "$LAB/munged.pid"; do
    [ -s "$file" ] && kill "$(cat "$file")" 2>/dev/null
  done
  watchdog=$(cat "$LAB/watchdog.pid" 2>/dev/null) # it leads a group of its own; skip it when it is us
  [ -n "$watchdog" ] && [ "$watchdog" != $$ ] && kill -- "-$watchdog" 2>/dev/null
  sleep 2
  rm -rf "$LAB"
}

case ${1:-} in
up) start ;;
env) echo "export SLURM_CONF=$LAB/slurm.conf" ;;
down) stop ;;
*)
  sed -n 2,9p "$0"
  exit 2
  ;;
esac
