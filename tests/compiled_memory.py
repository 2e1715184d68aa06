"""Memory that a plan counts without compiling, against that of compiled programs."""

from vps_jax.train.counting import size_in_bytes
from vps_jax.train.plan import working_memory
from vps_jax.train.step import Step


def assert_plan_knows_the_memory(traced: Step, compiled: Step, state, clip) -> None:
    """What is held in the half of a step that needs most, within 15 %."""
    first, second = (half.memory_analysis() for half in compiled.halves)
    forward = size_in_bytes((state, clip)) + first.output_size_in_bytes + first.temp_size_in_bytes
    results = second.output_size_in_bytes - second.alias_size_in_bytes  # the new state goes where the old one lay
    updating = second.argument_size_in_bytes + results + second.temp_size_in_bytes + size_in_bytes(clip)
    found, counted = max(forward, updating), size_in_bytes((state, clip)) + working_memory(traced)[0]
    print(f"counted {counted / 2**20:.1f} MiB, compiled {found / 2**20:.1f} MiB: {counted / found:.3f}")
    assert 0.85 < counted / found < 1.15
