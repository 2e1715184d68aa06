"""Tasks: each module has `make_targets`, `loss` and `decode`, and lists its settings."""

from vps_jax.tasks import instance, mask_classification, panoptic, semantic, vos

TASKS = {
    "panoptic": panoptic,
    "semantic": semantic,
    "instance": instance,
    "vos": vos,
    "mask_classification": mask_classification,
}
