"""Who reads the truth of a root: the data set that has its file there, by `vps_jax.datasets`."""

import fnmatch
import importlib
import pathlib
from collections.abc import Sequence

from vps_jax.datasets import DATASETS, DatasetSpec, dataset, own_folder
from vps_jax.datasets.spec import SPLITS
from vps_jax.evaluation.plan import Plan, TruthSource
from vps_jax.types import UserError

BARE = "youtube_vis_2021"  # a truth that is a json file alone is YouTube-VIS' or of its form


def read(truth: pathlib.Path, predictions: pathlib.Path, split: str, videos: Sequence[str] | None = None) -> Plan:
    """What there is to score.

    Raises:
      UserError: no truth of the split, or its reader's own complaint.
    """
    recognized = recognize(truth, split)
    if recognized is None:
        own = own_folder.opened(truth)
        if own is not None and (splits := scored_splits(own, truth)):
            raise UserError(f"{truth}: no truth of split {split!r}; expected one of {', '.join(splits)}")
        files = dict.fromkeys(
            f"{layout.truth.format(split=split)} ({spec.title})"
            for spec in DATASETS.values()
            for layout in spec.layouts
            if layout.truth and spec.truth
        )
        raise UserError(f"{truth}: no truth of split {split!r} there; expected one of {', '.join(files)}")
    spec, source = recognized
    reader = importlib.import_module(spec.truth)
    return reader.plan(TruthSource(truth, split, spec, source, videos), predictions)


def scored_splits(own: DatasetSpec, root: pathlib.Path) -> list[str]:
    """Splits of a user's own data that have a truth."""
    return [split for split in SPLITS if own.truth_file(root, split) is not None]


def recognize(root: pathlib.Path, split: str) -> tuple[DatasetSpec, pathlib.Path] | None:
    """The data set whose truth of a split lies in a root, and the file or folder that says so; None where none does.

    Images need not be there, unless nothing but the name of a list tells the data set.

    Raises:
      UserError: the root is a json that is read with the PNGs beside it.
    """
    if root.suffix == ".json" and not root.is_dir():
        _refuse_json_of_root(root)
        return dataset(BARE), root
    own = own_folder.opened(root)
    scored = [spec for spec in (*DATASETS.values(), own) if spec is not None and spec.truth]
    for spec in scored:
        if (source := spec.truth_file(root, split)) is not None:
            return spec, source
    for spec in scored:
        for layout in spec.layouts:
            source = root / layout.truth.format(split=split)
            if layout.truth and layout.truth != "{split}.txt" and source.exists():
                return spec, source
    return None


def _refuse_json_of_root(path: pathlib.Path) -> None:
    """Raises UserError for a json by whose name a data set knows its root, with the PNGs beside it."""
    for spec in DATASETS.values():
        names = [layout.truth.format(split="*") for layout in spec.layouts if layout.truth]
        if spec.truth not in ("", dataset(BARE).truth) and any(fnmatch.fnmatchcase(path.name, name) for name in names):
            raise UserError(f"{path}: the truth of {spec.title}; give its folder, {path.parent}")
