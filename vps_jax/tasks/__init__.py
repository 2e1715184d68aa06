"""Tasks: each module has `make_targets`, `loss` and `decode`, and lists its settings."""

from vps_jax.tasks import instance, panoptic, semantic

TASKS = {"panoptic": panoptic, "semantic": semantic, "instance": instance}
