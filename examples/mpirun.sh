#!/bin/bash
# Eight processes on this machine, one per GPU:  examples/mpirun.sh configs/stage3.py runs/stage3
# One process alone uses all GPUs of a machine as well; several are of use where the launcher wants them.
# Without --bind-to none, mpirun ties each process and the workers that read its data to few cores, or to one.
set -euo pipefail
mpirun -n 8 --bind-to none python main.py --config="$1" --workdir="$2" "${@:3}"
