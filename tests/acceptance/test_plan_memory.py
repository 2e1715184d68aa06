"""The memory that a plan counts against that of the compiled program: a step of Mask2Former on the ViT-Adapter.

The steps of TarViS are held against it where they are compiled anyway, in tests/train/test_stages.py.
"""

import jax
import pytest

from configs import vspw_tiny
from vps_jax.config import experiment, source_group
from vps_jax.train.counting import size_in_bytes
from vps_jax.train.plan import Shape, clip_of, working_memory
from vps_jax.train.setup import model_and_state, source_task
from vps_jax.train.sharding import make_mesh, state_sharding
from vps_jax.train.step import StepOptions, make_step


@pytest.mark.acceptance
def test_a_step_of_mask2former_is_counted_within_15_percent():
    given = vspw_tiny.get_config()
    given.model.remat = True
    given.model.semantic_groups = (("VSPW", 16),)
    config = experiment(given)
    model, tx, state = model_and_state(config)
    clip = clip_of(config, Shape("vspw", (96, 96), 1, 1.0), 2)
    step = make_step(
        model, source_task(config, "vspw"), source_group("vspw", config.data.sources["vspw"]), tx=tx,
        shardings=state_sharding(make_mesh(devices=jax.devices()[:1]), state), options=StepOptions(0, 0.99),
    )  # fmt: skip
    traced = step.func.trace(*step.args, state, clip)
    # less optimisation of the code changes nothing about the buffers
    memory = traced.lower().compile(compiler_options={"xla_backend_optimization_level": 0}).memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    compiled = memory.argument_size_in_bytes + results + memory.temp_size_in_bytes
    counted = size_in_bytes((state, clip)) + working_memory(traced)[0]
    print(f"counted {counted / 2**20:.1f} MiB, compiled {compiled / 2**20:.1f} MiB: {counted / compiled:.3f}")
    assert 0.85 < counted / compiled < 1.15
