#!/usr/bin/env bash
# Start a private, real SLURM (munged + slurmctld + N slurmd) on this one machine, without systemd.
# Idempotent: a healthy cluster with the same configuration is left alone, anything else of ours is restarted.
#   slurm-up.sh [--install]        then:  . "$N2V_SLURM_DIR/env.sh"   (exports SLURM_CONF)
# Everything (key, socket, config, state, logs, pids) lives under $N2V_SLURM_DIR; nothing under /etc is touched.
set -euo pipefail

DIR=${N2V_SLURM_DIR:-${TMPDIR:-/tmp}/n2v-slurm}          # state directory; keep the path short (unix socket limit: 107 bytes)
NODES=${N2V_SLURM_NODES:-3}                  # slurmd daemons (emulated nodes), all on this host
CPUS=${N2V_SLURM_CPUS:-8}                    # CPUs declared per node (may exceed the real number)
MEM=${N2V_SLURM_MEM:-8000}                   # MiB declared per node (may exceed the real amount)
GPUS=${N2V_SLURM_GPUS:-2}                    # fake GPUs per node (0: no GRES)
PORT=${N2V_SLURM_PORT:-16817}                # slurmctld; node i listens on PORT+i
# N2V_SLURM_OVERMEM=1: kill jobs above their --mem; N2V_SLURM_CRED_EXPIRE: least wait of a requeued job, seconds (10)
TIMEOUT=${N2V_SLURM_TIMEOUT:-60}             # seconds to wait for all nodes to be idle
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

if [ "${1:-}" = --install ]; then
  missing=; for c in munged mungekey slurmctld slurmd sbatch; do command -v $c >/dev/null || missing=1; done
  if [ -n "$missing" ]; then
    SUDO=; [ "$(id -u)" = 0 ] || SUDO=sudo
    $SUDO env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # the packages ship sysv/systemd services; without a slurm.conf or an init they stay down, which is what we want
    $SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
  fi
fi
for c in munged mungekey slurmctld slurmd sbatch; do
  command -v "$c" >/dev/null || { echo "slurm-up: $c not found (try --install)" >&2; exit 2; }
done

USERNAME=$(id -un)
# must be the name that slurmctld finds with gethostname(); addresses are given explicitly, so it need not resolve
HOST=$(hostname -s 2>/dev/null || uname -n); HOST=${HOST%%.*}
umask 022
mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd -P); chmod 755 "$DIR"
mkdir -p "$DIR"/{munge,state,spool,log,run,dev,tmp}
chmod 700 "$DIR/state"; chmod 755 "$DIR/munge" "$DIR/run"

# ---------- configuration (written to .new first, so that a change is noticed) ----------
gen_conf() {
cat <<CONF
ClusterName=n2v
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$USERNAME
SlurmdUser=$USERNAME
AuthType=auth/munge
CredType=cred/munge
# cred_expire also is the minimum wait of a requeued job before it starts again (default: 120 s)
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=${N2V_SLURM_CRED_EXPIRE:-10}
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
# no cgroups, no binding, no PAM, no MPI, no node health checks, no mail
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
PropagateResourceLimits=NONE
$( [ "${N2V_SLURM_OVERMEM:-0}" = 1 ] && echo "JobAcctGatherParams=OverMemoryKill" || echo "# --mem is only booked, not enforced (N2V_SLURM_OVERMEM=1: enforced by sampling RSS every 5 s)" )
# no slurmdbd; finished jobs stay visible to scontrol/squeue for MinJobAge s, and go to a text file (sacct -c)
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MinJobAge=600
# cores and memory are consumable; declared sizes count, not the real ones
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=100
# quick reactions, for tests
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
KillWait=5
CompleteWait=0
ReturnToService=2
SlurmdTimeout=60
SlurmctldTimeout=60
MessageTimeout=20
TreeWidth=65533
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
CONF
if [ "$GPUS" -gt 0 ]; then echo "GresTypes=gpu"; fi
local i gres=
if [ "$GPUS" -gt 0 ]; then gres=" Gres=gpu:$GPUS"; fi
for i in $(seq 1 "$NODES"); do
  # several nodes on one host: Debian builds with --enable-multiple-slurmd, so same host, other Port, slurmd -N
  echo "NodeName=node$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT+i)) CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM$gres State=UNKNOWN"
done
local all="node[1-$NODES]"; [ "$NODES" -eq 1 ] && all=node1
echo "PartitionName=main Nodes=$all Default=YES MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=10 PreemptMode=REQUEUE LLN=YES"
echo "PartitionName=urgent Nodes=$all Default=NO MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=100 PreemptMode=OFF"
}
gen_conf > "$DIR/slurm.conf.new"
{
  # a gpu needs File= naming a distinct device node with a trailing number: then CUDA_VISIBLE_DEVICES is set in jobs.
  # (Count= alone: node INVALID; /dev/null twice: slurmd dies; plain files: scheduled, but no CUDA_VISIBLE_DEVICES.)
  # Links to /dev/null do, and need no mknod.
  if [ "$GPUS" -gt 0 ]; then
    for i in $(seq 0 $((GPUS-1))); do ln -sfn /dev/null "$DIR/dev/fakegpu$i"; done
    echo "Name=gpu File=$DIR/dev/fakegpu[0-$((GPUS-1))]"
  fi
} > "$DIR/gres.conf.new"

# ---------- already up? ----------
ready() { # all nodes idle/mixed/allocated, none down
  local n
  n=$(SLURM_CONF=$DIR/slurm.conf timeout 10 sinfo -h -N -p main -o '%N %t' 2>/dev/null | grep -cE ' (idle|mix|alloc|comp)$' || true)
  [ "$n" = "$NODES" ]
}
same=0
if cmp -s "$DIR/slurm.conf" "$DIR/slurm.conf.new" && cmp -s "$DIR/gres.conf" "$DIR/gres.conf.new"; then same=1; fi
running() { # every daemon of ours is really there (sinfo notices a dead one only after a timeout)
  local f p
  for f in "$DIR"/run/{munged,slurmctld}.pid $(seq -f "$DIR/run/slurmd-node%g.pid" "$NODES"); do
    p=$(cat "$f" 2>/dev/null) || return 1
    { tr '\0' ' ' < "/proc/$p/cmdline"; } 2>/dev/null | grep -qF "$DIR/" || return 1
  done
}
if [ "$same" = 1 ] && running && ready; then
  rm -f "$DIR"/*.new; echo "slurm-up: already running ($DIR)"; exit 0
fi
N2V_SLURM_DIR=$DIR "$HERE/slurm-down.sh" --quiet
mv "$DIR/slurm.conf.new" "$DIR/slurm.conf"; mv "$DIR/gres.conf.new" "$DIR/gres.conf"
printf 'CgroupPlugin=%s\n' "${N2V_SLURM_CGROUP_PLUGIN:-cgroup/v1}" > "$DIR/cgroup.conf"
rm -rf "$DIR/state" "$DIR/spool" "$DIR"/log/*; mkdir -p "$DIR/state" "$DIR/spool"; chmod 700 "$DIR/state"
cat > "$DIR/env.sh" <<CONF
export SLURM_CONF='$DIR/slurm.conf'
export N2V_SLURM_DIR='$DIR'
CONF
export SLURM_CONF=$DIR/slurm.conf

# ---------- munge ----------
[ -s "$DIR/munge/munge.key" ] || mungekey --create --keyfile "$DIR/munge/munge.key"
chmod 600 "$DIR/munge/munge.key"
munged --key-file "$DIR/munge/munge.key" --socket "$DIR/run/munge.socket" --pid-file "$DIR/run/munged.pid" \
       --seed-file "$DIR/munge/munge.seed" --log-file "$DIR/log/munged.log" --num-threads 2 --origin 127.0.0.1

# ---------- slurm ----------
slurmctld -f "$DIR/slurm.conf" -c
for i in $(seq 1 "$NODES"); do
  mkdir -p "$DIR/spool/node$i"
  slurmd -f "$DIR/slurm.conf" -N "node$i"
done

end=$((SECONDS+TIMEOUT))
until ready; do
  if [ $SECONDS -ge $end ]; then
    echo "slurm-up: nodes are not idle after $TIMEOUT s" >&2
    sinfo -N -o '%N %t %E' >&2 || true
    tail -n 30 "$DIR"/log/*.log >&2 || true
    exit 1
  fi
  sleep 0.2
done
echo "slurm-up: $NODES node(s) x $CPUS CPUs, $MEM MiB, $GPUS gpu(s) ready; . $DIR/env.sh"
