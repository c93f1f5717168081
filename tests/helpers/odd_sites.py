"""Clients of Slurm as odd sites have them: scripts before the real ones, on PATH, that change what is said and told.

`banner`: sbatch prints a cost and a greeting beside the job. `cluster`: jobs are of the cluster "far", which sbatch
names, and which squeue, sacct and scancel know only with --clusters=far. `slow`: sbatch queues the job and does not
answer; `lost`: it queues it and says that the controller timed out. `arrays`: no array of more than two tasks. `bare`:
sbatch passes no environment on, whatever it is told.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

SBATCH = """#!/bin/bash
# {kinds}
has() {{ [[ " {kinds} " == *" $1 "* ]]; }}
refuse() {{
  echo "sbatch: error: Batch job submission failed: $1" >&2
  exit 1
}}
words=()
for word in "$@"; do
  case $word in
    --clusters=far) ;;
    --array=*)
      tasks=${{word#--array=}} tasks=${{tasks%%%*}}
      has arrays && ((${{tasks#*-}} > 1)) && refuse 'Invalid job array specification'
      words+=("$word") ;;
    *) words+=("$word") ;;
  esac
done
has bare && words=(--export=NONE "${{words[@]}}")
has banner && echo 'Welcome. Your project has 1234 hours left.'
said=$({real}/sbatch "${{words[@]}}") || exit
has lost && refuse 'Socket timed out on send/recv operation'
has slow && sleep 600
has cluster && said="$said;far"
echo "$said"
has banner && echo '17'
exit 0
"""
# Of the others: without --clusters=far they speak of another cluster, which has no jobs.
OTHER = """#!/bin/bash
words=() far='{far}'
for word in "$@"; do
  [[ $word == --clusters=far ]] && far='' || words+=("$word")
done
[[ -z $far ]] || exit 0
{header}
exec {real}/{name} "${{words[@]}}"
"""
SCONTROL = """#!/bin/bash
{real}/scontrol "$@" | sed 's/^MaxArraySize .*/MaxArraySize            = 2/'
"""


def odd_site(folder: Path, kinds: Collection[str], *, real: str = "/usr/bin") -> str:
    """Make the scripts of such a site; returns the PATH on which they come first."""
    folder.mkdir()
    far = "far" if "cluster" in kinds else ""
    scripts = {"sbatch": SBATCH.format(kinds=" ".join(kinds), real=real)}
    for name in ("squeue", "sacct", "scancel"):
        header = "echo 'CLUSTER: far'" if far and name == "squeue" else ""
        scripts[name] = OTHER.format(far=far, name=name, real=real, header=header)
    if "arrays" in kinds:
        scripts["scontrol"] = SCONTROL.format(real=real)
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}:/usr/sbin:/sbin"
