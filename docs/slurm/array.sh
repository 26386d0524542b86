#!/usr/bin/env bash
# sbatch --array=0-9 docs/slurm/array.sh 3 sup_training.py FLAGS… : 3 networks a task, 30 in all
#SBATCH --job-name=networks
#SBATCH --cpus-per-task=1
#SBATCH --output=slurm_%x_%a.out
set -euo pipefail
per_task=$1 script=$2
shift 2
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
exec python "$script" "$@" --models_number "$per_task" \
    --index_start $((SLURM_ARRAY_TASK_ID * per_task))
