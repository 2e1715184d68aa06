#!/bin/bash
# Two nodes with eight GPUs each, one process per node:  sbatch examples/slurm.sh configs/stage3.py runs/stage3
# One process per GPU works too: --ntasks-per-node=8.
#SBATCH --job-name=vps-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --signal=TERM@120
#SBATCH --requeue
# SIGTERM two minutes before the end: the run saves and leaves with 143, and the same command goes on from there.
set -euo pipefail
source .venv/bin/activate
srun python main.py --config="$1" --workdir="$2" "${@:3}"
