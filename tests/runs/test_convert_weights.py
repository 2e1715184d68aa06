"""Published weights as a checkpoint of ours."""

import jax
import numpy as np

from vps_jax import convert
from vps_jax.config import experiment
from vps_jax.runs.experiment import convert_weights
from vps_jax.train.checkpoint import restore_for_inference

MODEL = {"name": "videomt", "size": "small", "semantic_groups": (("VIPSEG", 124),), "width": 16, "num_heads": 2,
         "trunk_blocks": 1, "query_blocks": 1, "queries": 3, "image_size": 96}  # fmt: skip


def test_the_checkpoint_has_the_sizes_that_only_the_file_knows(tmp_path):
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), convert.expected(MODEL))
    convert.save_torch(tmp_path / "file.pth", convert.to_arrays(variables, MODEL))
    told = experiment({"model": {**MODEL, "image_size": 640}})
    report = convert_weights(tmp_path / "file.pth", told, tmp_path / "run")
    config, restored = restore_for_inference(tmp_path / "run")
    assert report["model"] == config.model and config.model.image_size == 96
    np.testing.assert_array_equal(restored["params"]["trunk"]["pos_embed"], variables["params"]["trunk"]["pos_embed"])
