"""An experiment on a user's own data: what the prepared folder says is filled into the config before anything runs."""

import dataclasses
import pathlib

from vps_jax.config import Experiment, InitFrom
from vps_jax.data.own_prepare import CLASSES, RECORDS, TRUTH
from vps_jax.datasets import class_file, own_folder
from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.own import TRACKS
from vps_jax.types import UserError

WITH_THINGS = ("panoptic", "instance")  # tasks


def filled(config: Experiment) -> Experiment:
    """The experiment with classes, sources and truth of `config.own.data`; unchanged where that is empty.

    Raises:
      UserError: the folder is not one that `vps-jax data prepare own` wrote, or its labels do not fit the task.
    """
    if not config.own.data:
        if any(not source.path for source in config.data.sources.values()):
            raise UserError("own.data is empty; expected the folder that `vps-jax data prepare own` wrote: set it")
        return config
    folder = pathlib.Path(config.own.data)
    prepared = own_folder.kept(folder / TRUTH)
    if prepared is None:
        raise UserError(
            f"own.data={config.own.data}: {folder / TRUTH / own_folder.NAME} is not there; expected the folder that "
            "`vps-jax data prepare own` wrote"
        )
    own, truth = class_file.read(folder / CLASSES), str(folder / TRUTH)
    check_tasks(config, prepared["form"], own.classes, folder)
    config = with_classes(config, own.classes)
    sources = {
        name: dataclasses.replace(source, path=source.path or str(folder / RECORDS))
        for name, source in config.data.sources.items()
    }
    return dataclasses.replace(
        config,
        init_from=with_like(config.init_from, own),
        data=dataclasses.replace(config.data, sources=sources),
        evaluate=dataclasses.replace(config.evaluate, truth=truth, layout=truth),
    )


def check_tasks(config: Experiment, form: str, classes: ClassTable, folder: pathlib.Path) -> None:
    """Raises UserError where the labels do not say what a task of the sources asks for."""
    for task in sorted({source.task for source in config.data.sources.values()}):
        if (task == "instance") != (form in TRACKS):
            says = "nothing of stuff" if form in TRACKS else "classes of all pixels"
            kinds = "instance" if form in TRACKS else "semantic, panoptic or image"
            raise UserError(
                f"own.data={folder}: labels of --format {form} say {says}, the task is {task!r}; expected "
                f"configs/own.py:{kinds}"
            )
        if task in WITH_THINGS and not classes.thing_ids:
            raise UserError(
                f"own.data={folder}: no class is a thing, the task is {task!r}; expected thing: true in the class "
                "file, or configs/own.py:semantic"
            )


def with_classes(config: Experiment, classes: ClassTable) -> Experiment:
    """The experiment with so many classes in the group of own data: all of them, or the things of task `instance`."""
    own = {n: s for n, s in config.data.sources.items() if s.group == config.own.group}
    class_maps, count = dict(config.class_maps), len(classes.names)
    if any(source.task == "instance" for source in own.values()) and count > len(classes.thing_ids):
        count = len(classes.thing_ids)
        numbers = {c: i for i, c in enumerate(classes.thing_ids)}
        class_maps |= {name: tuple(numbers.get(c, -1) for c in range(len(classes.names))) for name in own}
    groups = tuple((name, count if name == config.own.group else n) for name, n in config.model.semantic_groups)
    model = dataclasses.replace(config.model, semantic_groups=groups)
    return dataclasses.replace(config, model=model, class_maps=class_maps)


def with_like(settings: InitFrom, own: class_file.ClassFile) -> InitFrom:
    """What a run starts from, with the `like` of the class file where classes go by name and none is given."""
    if not settings.by_name or settings.like:
        return settings
    rows = zip(own.classes.names, own.like, strict=True)
    return dataclasses.replace(settings, like=tuple((name, like) for name, like in rows if like))
