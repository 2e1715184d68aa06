"""An experiment on a user's own data: what the prepared folder says is filled into the config before anything runs."""

import dataclasses
import pathlib

from vps_jax.config import Experiment
from vps_jax.data.own_prepare import CLASSES, RECORDS, TRUTH
from vps_jax.datasets import class_file, own_folder
from vps_jax.types import UserError


def filled(config: Experiment) -> Experiment:
    """The experiment with classes, sources and truth of `config.own.data`; unchanged where that is empty.

    Raises:
      UserError: the folder is not one that `vps-jax data prepare own` wrote.
    """
    if not config.own.data:
        if any(not source.path for source in config.data.sources.values()):
            raise UserError("own.data is empty; expected the folder that `vps-jax data prepare own` wrote: set it")
        return config
    folder = pathlib.Path(config.own.data)
    if own_folder.kept(folder / TRUTH) is None:
        raise UserError(
            f"own.data={config.own.data}: {folder / TRUTH / own_folder.NAME} is not there; expected the folder that "
            "`vps-jax data prepare own` wrote"
        )
    count, truth = len(class_file.read(folder / CLASSES).classes.names), str(folder / TRUTH)
    groups = tuple((name, count if name == config.own.group else n) for name, n in config.model.semantic_groups)
    sources = {
        name: dataclasses.replace(source, path=source.path or str(folder / RECORDS))
        for name, source in config.data.sources.items()
    }
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, semantic_groups=groups),
        data=dataclasses.replace(config.data, sources=sources),
        evaluate=dataclasses.replace(config.evaluate, truth=truth, layout=truth),
    )
