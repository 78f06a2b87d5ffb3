#!/usr/bin/env bash
# Stop the private SLURM of slurm-up.sh: cancels jobs, then stops slurmd, slurmctld, munged by their own pid files.
set -uo pipefail
DIR=${N2V_SLURM_DIR:-${TMPDIR:-/tmp}/n2v-slurm}
QUIET=; [ "${1:-}" = --quiet ] && QUIET=1
[ -d "$DIR" ] || exit 0
DIR=$(cd "$DIR" && pwd -P)
export SLURM_CONF=$DIR/slurm.conf

ours() { # pid: a live process of ours (a zombie that PID 1 has not reaped has an empty cmdline: not live)
  { tr '\0' ' ' < "/proc/$1/cmdline"; } 2>/dev/null | grep -qF "$DIR/"
}
alive() { # pid file -> pid
  local p; p=$(cat "$1" 2>/dev/null) && [ -n "$p" ] && ours "$p" && echo "$p"
}
stop() { # pid files: all are told to stop, then all are waited for
  local f p i pids=
  for f in "$@"; do if p=$(alive "$f"); then kill "$p" 2>/dev/null; pids="$pids $p"; fi; done
  for p in $pids; do
    for i in $(seq 150); do ours "$p" || break; sleep 0.1; done
    ours "$p" && kill -KILL "$p" 2>/dev/null
  done
  rm -f "$@"
}
if alive "$DIR/run/slurmctld.pid" >/dev/null; then
  jobs=$(timeout 10 squeue -h -o %i 2>/dev/null | tr '\n' ' ')
  if [ -n "$jobs" ]; then
    timeout 20 scancel --full --signal=KILL $jobs 2>/dev/null; timeout 20 scancel $jobs 2>/dev/null
    for _ in $(seq 60); do [ -z "$(timeout 10 squeue -h -o %i 2>/dev/null)" ] && break; sleep 0.25; done
  fi
fi
stop "$DIR/run/slurmctld.pid" "$DIR"/run/slurmd-*.pid
stop "$DIR/run/munged.pid"
rm -f "$DIR/run/munge.socket" "$DIR/run/munge.socket.lock"
[ -n "$QUIET" ] || echo "slurm-down: stopped ($DIR)"
exit 0
