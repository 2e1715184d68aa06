"""The memory that a plan counts against that of the compiled program: a step of Mask2Former on the ViT-Adapter.

The steps of TarViS are held against it where they are compiled anyway, in tests/train/test_stages.py.
"""

import jax
import pytest
from compiled_memory import assert_plan_knows_the_memory

from configs import vspw_tiny
from vps_jax.config import experiment, source_group
from vps_jax.train.plan import Shape, clip_of
from vps_jax.train.setup import model_and_state, source_task
from vps_jax.train.sharding import make_mesh, state_sharding
from vps_jax.train.step import StepOptions, make_step, make_update


@pytest.mark.acceptance
def test_a_step_of_mask2former_is_counted_within_15_percent():
    given = vspw_tiny.get_config()
    given.model.remat = True
    given.model.semantic_groups = (("VSPW", 16),)
    config = experiment(given)
    model, tx, state = model_and_state(config)
    clip = clip_of(config, Shape("vspw", (96, 96), 1, 1.0), 2)
    shardings, options = state_sharding(make_mesh(devices=jax.devices()[:1]), state), StepOptions(0, 0.99)
    step = make_step(
        model, source_task(config, "vspw"), source_group("vspw", config.data.sources["vspw"]),
        make_update(tx, shardings, options), shardings=shardings, options=options,
    )  # fmt: skip
    # less optimisation of the code changes nothing about the buffers
    compiled = step.compile(state, clip, compiler_options={"xla_backend_optimization_level": 0})
    assert_plan_knows_the_memory(step.trace(state, clip), compiled, state, clip)
