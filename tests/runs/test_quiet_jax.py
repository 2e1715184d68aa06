"""A second run, which reads the programs that the first one has compiled, says nothing of its own accord."""

import os
import subprocess
import sys

SCRIPT = """
import logging

import jax
import jax.numpy as jnp

from vps_jax.runs.experiment import set_up_jax

set_up_jax()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(float(jax.jit(lambda x, i: jnp.sort(x.at[i].add(1.0) @ x.T).sum())(jnp.ones((64, 64)), jnp.arange(5))))
assert logging.getLogger("jax").level == logging.NOTSET and not logging.getLogger("jax").handlers
"""


def run(cache):
    left_out = ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True,
        env=kept | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
    )  # fmt: skip


def test_cached_programs_are_read_without_remarks_although_jax_was_imported_first(tmp_path):
    for _ in range(2):
        done = run(tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir())  # there were cached programs
