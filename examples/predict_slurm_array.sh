#!/bin/bash
# Eight jobs with one GPU each that share one output folder; everything behind the script goes to vps-jax predict:
#   sbatch examples/predict_slurm_array.sh 'videos/*.mp4' --checkpoint runs/stage4 --output results
# Each job takes the next video that nobody works on. `sbatch --array=0-31 ...` starts 32 of them; jobs may be added
# while others run. The same line again does what is missing.
#SBATCH --job-name=vps-jax-predict
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@60
#SBATCH --requeue
set -euo pipefail
source .venv/bin/activate
srun vps-jax predict "$@"
