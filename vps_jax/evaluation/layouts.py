"""Who reads the truth of a root: the data set that has its file there, by `vps_jax.datasets`."""

import importlib
import pathlib
from collections.abc import Sequence

from vps_jax.datasets import DATASETS, DatasetSpec, dataset, own_folder
from vps_jax.evaluation.plan import Plan
from vps_jax.types import UserError

BARE = "youtube_vis_2021"  # a truth that is a json file alone is YouTube-VIS' or of its form


def read(truth: pathlib.Path, predictions: pathlib.Path, split: str, videos: Sequence[str] | None = None) -> Plan:
    """What there is to score.

    Raises:
      UserError: no truth of the split, or its reader's own complaint.
    """
    found = recognize(truth, split)
    if found is None:
        files = dict.fromkeys(
            f"{layout.truth.format(split=split)} ({spec.title})"
            for spec in DATASETS.values()
            for layout in spec.layouts
            if layout.truth and spec.truth
        )
        raise UserError(f"{truth}: no truth of split {split!r} there; expected one of {', '.join(files)}")
    spec, source = found
    reader = importlib.import_module(spec.truth)
    return reader.plan(truth, predictions, split, source=source, classes=spec.classes, videos=videos)


def recognize(root: pathlib.Path, split: str) -> tuple[DatasetSpec, pathlib.Path] | None:
    """The data set whose truth of a split lies in a root, and the file or folder that says so; None where none does.

    Images need not be there, unless nothing but the name of a list tells the data set.
    """
    if root.suffix == ".json" and not root.is_dir():
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
