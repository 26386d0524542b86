#!/usr/bin/env bash
# sbatch --ntasks=8 --gpus-per-task=1 docs/slurm/ranks.sh sup_training.py FLAGS… : one task a GPU
#SBATCH --job-name=ranks
#SBATCH --cpus-per-task=1
#SBATCH --output=slurm_%x.out
set -euo pipefail
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
exec srun --kill-on-bad-exit=0 --label python "$@"
