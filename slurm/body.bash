# --- slurm/body.bash, the same in every stage's script: change it there, then `make scripts` ---
# Copies, because sbatch runs a script far from its siblings, and what is queued must not change with the checkout.

# What a run writes tells of single people: it is for its owner alone, and so is the log that Slurm has opened already.
umask 077
for log in /dev/stdout /dev/stderr; do [[ ! -f $log ]] || chmod go= "$log"; done
export PYTHONSAFEPATH=1 # no module of the working directory; for Python 3.10 see mia_batch/module_path.py

unknown() {
  printf '%s.sbatch: no such word: %s\n' "$stage" "$1" >&2
  exit 2
}

config=${1:?$usage} dir=${2:?$usage}
shift 2
options=() methods=() runs=() only='' first=0
while (($#)) && [[ $1 != -- ]]; do
  [[ " $words " == *" ${1%%=*}= "* ]] || unknown "$1"
  value=${1#*=}
  case $1 in
    export=*) export "${value?}" ;;
    module=*) module load "$value" || exit 1 ;;
    source=*)
      # shellcheck source=/dev/null
      source "$value" || exit 1
      ;;
    method=*) methods+=("$value") ;;
    checkpoint=*) options+=(--checkpoint "$value") ;;
    set=*) options+=(--set "$value") ;;
    first=*)
      [[ $value =~ ^(0|[1-9][0-9]*)$ ]] || unknown "$1"
      first=$value
      ;;
    prepared=*) options+=(--prepared "$value") ;;
    list=*)
      mapfile -d '' -t runs <"$value" || exit 1
      task=0
      if [[ $stage != prepare ]]; then # which reads for all of them, as they differ in nothing else
        task=${SLURM_ARRAY_TASK_ID:?list= wants an array: sbatch --array=0-$((${#runs[@]} / 2 - 1))}
        dir=${runs[2 * task + 1]:?task $task is none of $value}
      fi
      options+=(--checkpoint "${runs[2 * task]}")
      ;;
    *) unknown "$1" ;;
  esac
  shift
done
shift # the --
(($#)) || set -- "${start_python[@]}"
umask 077 # again: a sourced file may have set another

if ((${#methods[@]} > 0)); then
  task=${SLURM_ARRAY_TASK_ID:?method= wants an array: sbatch --array=0-$((${#methods[@]} - 1))}
  options+=(--method "${methods[task]:?task $task has no method=NAME}")
fi

if [[ $stage == references && ${SLURM_ARRAY_TASK_ID-} ]] && ((${#runs[@]} == 0)); then
  only=-$((first + SLURM_ARRAY_TASK_ID))
  options+=(--only "${only#-}")
fi
if [[ $stage == shadows ]]; then
  task=${SLURM_ARRAY_TASK_ID:?shadows wants an array: sbatch --array=0-3 for four models}
  options+=(--only "$((first + task))")
fi

# The log is in DIR, whoever queued this and with whatever --output; prepare has no run's directory to put it in.
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
[[ $stage == prepare ]] || { mkdir -p -- "$dir/logs" && exec >>"$dir/logs/$stage-$job.log" 2>&1; }

if [[ $stage == extract || $stage == references ]]; then
  # What mpirun starts sees its own srun's size, one task a node, in SLURM_NTASKS: keep the true one for the ranks.
  export MIA_BATCH_RANKS=${SLURM_NTASKS:-1}
  unset SLURM_NTASKS_PER_NODE # or that srun warns of it
  # From Slurm 22.05 on srun does not take this from the job. Not for mpirun: its own srun starts one task a node, which
  # would get so many cores for all of the node's ranks.
  if [[ ${1##*/} == srun && ${SLURM_CPUS_PER_TASK-} ]]; then
    export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-$SLURM_CPUS_PER_TASK}
  fi
fi

export SLURM_EXPORT_ENV=ALL # or ranks would get nothing of it in a job of sbatch --export=NONE

# The stage is a child, so that this script hears Slurm's warnings.
child='' warned='' ending=''
forward() {
  interrupted=1
  [[ -z $child ]] || kill -USR1 "$child" 2>/dev/null
}
trap 'warned=1; forward' USR1 # the time limit or a preemption is near: save, then queue again
trap 'ending=1; forward' TERM # cancelled, preempted or requeued: save; what comes next is Slurm's business

echo "$SLURM_JOB_NAME ${SLURM_ARRAY_TASK_ID:+task $SLURM_ARRAY_TASK_ID of }job $SLURM_JOB_ID," \
  "start $((${SLURM_RESTART_COUNT:-0} + 1)), ${SLURM_NTASKS:-1} task(s) on $SLURM_JOB_NODELIST"
program=$stage
[[ $stage != import ]] || program=import_outputs # as `import` is none of Python's names
"$@" -m "mia_batch.jobs.$program" "$config" --out "$dir" "${options[@]}" &
child=$!
[[ -z $warned$ending ]] || forward
interrupted=1
while [[ $interrupted ]]; do # a signal ends `wait` early
  interrupted=''
  wait "$child"
  code=$?
done

# A rank that dies of ILL, ABRT, BUS, FPE or SEGV has the launch's rows computed again: mia_batch/rundir/crashes.py.
launch=''
if [[ $stage == extract ]]; then
  launch=$dir/.launch
elif [[ $stage == references && -e $dir/.references$only.launch ]]; then
  launch=$(<"$dir/.references$only.launch") # in the store, of the reference that it was at
fi
if [[ -e $launch && $code =~ ^(4|6|7|8|11|132|134|135|136|139)$ ]]; then
  echo "$stage ended with exit code $code" >>"$launch"
fi

# Whether a node of this job no longer answers. Slurm itself finds out minutes later, and would not wait for it here.
lost_a_node() {
  ! timeout 60 srun --overlap --mpi=none --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 true &>/dev/null
}

again=''
if ((code == 75)); then
  again='stopped with its state saved'
elif ((code <= 4)); then
  : # a verdict (0, 3, 4), or what would fail again (1, 2)
elif [[ $warned ]]; then # the signal came before the stage, or a rank of it, listened
  again="stopped; $saved"
elif [[ ($stage == extract || $stage == references) && -z $ending ]] && lost_a_node; then
  again="lost a node; $saved"
fi
if [[ $again && -z $ending ]] && ((${SLURM_RESTART_COUNT:-0} < 100)); then
  echo "$SLURM_JOB_NAME $again; back to the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
