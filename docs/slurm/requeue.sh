#!/usr/bin/env bash
# sbatch --time=4:00:00 docs/slurm/requeue.sh sup_training.py FLAGS… : again and again, to the end
#SBATCH --job-name=requeue
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%x_%j.out
trap 'kill -USR1 $child' USR1 TERM # save, and leave with 75
python "$@" &
child=$!
wait $child
code=$?
[ $code -le 128 ] || { wait $child && code=0 || code=$?; } # the trap had cut the wait short
[ $code != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit $code
