"""Scalars, texts and images to Weights & Biases, by the calls of `summaries.SummaryWriter`.

Whether the run is sent or kept on the disk, and where to, say the variables of that program, such as `WANDB_MODE`.
"""

import importlib.util
import pathlib

import numpy as np

from vps_jax.config import Experiment
from vps_jax.parsing import plain
from vps_jax.types import UserError

PACKAGE = "wandb"


def check(project: str) -> None:
    """Raise UserError if a project is named and the package is not there."""
    if project and importlib.util.find_spec(PACKAGE) is None:
        raise UserError(
            f"train.wandb_project={project!r}: {PACKAGE} is not installed; pip install {PACKAGE}, or leave the key out"
        )


class WandbWriter:
    """One run of a project; a training that is resumed goes on in it.

    What a resumed training repeats has the same numbers, so that those of later steps that are there already stay.

    Args:
      workdir: gets the program's files; its last part names the run.
      experiment: the config, shown beside the charts.
      run_id: of the training, the same after it was resumed.
    """

    def __init__(self, workdir, experiment: Experiment, run_id: str):
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=experiment.train.wandb_project, id=run_id, name=pathlib.Path(workdir).absolute().name,
            dir=str(workdir), config=plain(experiment), resume="allow",
        )  # fmt: skip

    def write_scalars(self, step: int, scalars) -> None:
        self._run.log({tag: float(value) for tag, value in scalars.items()}, step=step)

    def write_texts(self, step: int, texts) -> None:
        """Nothing: the only text is the config, which the run has from its start."""

    def write_images(self, step: int, images) -> None:
        """Images `[n, h, w, 3]` RGB, uint8."""
        self._run.log({tag: [self._image(np.asarray(image)) for image in n] for tag, n in images.items()}, step=step)

    def flush(self) -> None:
        """Nothing: what is logged is sent at once."""

    def close(self) -> None:
        self._run.finish()
