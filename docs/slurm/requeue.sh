#!/usr/bin/env bash
# sbatch --time=4:00:00 docs/slurm/requeue.sh sup_training.py FLAGS… : again and again, to the end
#SBATCH --job-name=requeue
#SBATCH --cpus-per-task=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%x_%j.out
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
trap 'kill -USR1 $child' USR1 TERM # save, and leave with 75
python "$@" &
child=$!
while wait $child; code=$?; kill -0 $child 2>/dev/null; do :; done # each signal cuts a wait short
[ $code -le 128 ] || { wait $child && code=0 || code=$?; }
[ $code != 75 ] || scontrol requeue "$SLURM_JOB_ID"; exit $code
