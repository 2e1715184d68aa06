"""A process that runs a script of this folder with the package of a checkout, so that two checkouts can take turns."""

import json
import os
import pathlib
import subprocess
import sys
import time


class Checkout:
    """Runs `SCRIPT ARGUMENTS --serve`, which answers each line of its input by a line of JSON."""

    def __init__(self, folder: pathlib.Path, script: str, *arguments: str):
        """`folder`: of the checkout; the script is ours for all of them."""
        self.process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(script).resolve()), *arguments, "--serve"],
            env=os.environ | {"PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"},
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, order: str):
        """The answer to a line."""
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the process of a checkout ended at '{order}'; its message is above")
        return json.loads(line)


def seconds(call) -> tuple[float, float]:
    """Of CPU in all threads, and on the clock."""
    start = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - start[0], time.perf_counter() - start[1]
