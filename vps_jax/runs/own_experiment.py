"""An experiment on a user's own data: what the prepared folder says is filled into the config before anything runs."""

import dataclasses
import pathlib

from vps_jax.config import Experiment, InitFrom
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
    found, truth = class_file.read(folder / CLASSES), str(folder / TRUTH)
    count = len(found.classes.names)
    groups = tuple((name, count if name == config.own.group else n) for name, n in config.model.semantic_groups)
    sources = {
        name: dataclasses.replace(source, path=source.path or str(folder / RECORDS))
        for name, source in config.data.sources.items()
    }
    return dataclasses.replace(
        config,
        init_from=with_like(config.init_from, found),
        model=dataclasses.replace(config.model, semantic_groups=groups),
        data=dataclasses.replace(config.data, sources=sources),
        evaluate=dataclasses.replace(config.evaluate, truth=truth, layout=truth),
    )


def with_like(settings: InitFrom, found: class_file.ClassFile) -> InitFrom:
    """What a run starts from, with the `like` of the class file where classes go by name and none is given."""
    if not settings.by_name or settings.like:
        return settings
    rows = zip(found.classes.names, found.like, strict=True)
    return dataclasses.replace(settings, like=tuple((name, like) for name, like in rows if like))
