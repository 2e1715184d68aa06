"""Predict on the machines of a Ray cluster; all workers share one output folder, which every machine must see.

    pip install 'vps-jax[ray]'
    python examples/predict_ray.py --workers 8 --gpus 1 videos/ --checkpoint runs/stage4 --output results

Each worker takes the next video that nobody works on. Other options than those of this script go to `vps-jax predict`.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

import ray


def predict(arguments: Sequence[str], folder: str) -> int:
    """The exit code of `vps-jax predict` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "vps_jax", "predict", *arguments], cwd=folder).returncode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, default=2, help="number of processes; default 2")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each; default none")
    parser.add_argument("--cpus", type=float, default=1, help="processor cores of each; default 1")
    parser.add_argument("--address", help="of a running cluster; default: RAY_ADDRESS, or this machine alone")
    options, arguments = parser.parse_known_args()
    ray.init(address=options.address)
    worker = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus)(predict)
    codes = ray.get([worker.remote(arguments, os.getcwd()) for _ in range(options.workers)])
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
