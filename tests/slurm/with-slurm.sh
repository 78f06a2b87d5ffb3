#!/usr/bin/env bash
# with-slurm.sh COMMAND...: run COMMAND with a private SLURM, then take it down; logs are printed when COMMAND fails.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export N2V_SLURM_DIR=${N2V_SLURM_DIR:-${TMPDIR:-/tmp}/n2v-slurm}
"$HERE/slurm-up.sh" --install || exit $?
trap '"$HERE/slurm-down.sh" --quiet' EXIT
. "$N2V_SLURM_DIR/env.sh"
"$@"; rc=$?
if [ $rc != 0 ]; then
  { echo "== with-slurm: rc=$rc"; sinfo -N -o '%N %t %C %E'; squeue; cat "$N2V_SLURM_DIR/log/jobcomp.txt"
    for f in "$N2V_SLURM_DIR"/log/slurm*.log; do echo "== $f"; tail -n 40 "$f"; done; } >&2
fi
exit $rc
