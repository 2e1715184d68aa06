"""A user's own data as a folder of records, class file and truth, which is all that later commands need."""

import pathlib

import yaml

from vps_jax import files
from vps_jax.data import own_truth
from vps_jax.data import prepare as preparation
from vps_jax.datasets import own_folder
from vps_jax.datasets.own import TRACKS, Own, specification
from vps_jax.types import UserError

RECORDS, TRUTH, CLASSES = "records", "truth", "classes.yaml"
FRAMES, PREVIEW = "frames", "preview.jpg"
REMEDY = "give --again to replace it, or name another --out"


def prepare(
    own: Own,
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    replace: bool = False,
    skip_bad: bool = False,
    short_side: int | None = None,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, dict]:
    """Write `out/records`, `out/classes.yaml`, and `out/truth`, a root that can be predicted and scored.

    Args:
      own: what the user says of the data.
      source: folder of the data; the truth is read from there, so it stays.
      out: folder to write. A finished one of the same source, patterns and class file is only reported.
      replace: write records that were made from others anew.
      skip_bad, short_side, workers, progress: as of `prepare.prepare`.

    Returns:
      The report of each split, see `prepare.describe_report`.

    Raises:
      UserError: as of `prepare.prepare`; or `out` was made from something else.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    spec = specification(own)
    spec.layout(source)
    refuse_change(out / TRUTH, own_folder.described(own, source))
    report = preparation.prepare(
        spec, source, out, skip_bad=skip_bad, short_side=short_side, workers=workers, progress=progress,
        folder=RECORDS, replace=replace, remedy=REMEDY,
    )  # fmt: skip
    text = yaml.safe_dump(own.classes.as_mapping(), sort_keys=False, default_flow_style=None)
    # a set that is whole is not touched: its disk may be read-only
    if not (out / CLASSES).is_file() or (out / CLASSES).read_text() != text:
        files.write_text(out / CLASSES, text)
    if own_folder.kept(out / TRUTH) != own_folder.described(own, source):  # written last
        if own.form in TRACKS:
            own_truth.write(spec, source, out / TRUTH)
        own_folder.write(out / TRUTH, own, source)
    return report


def refuse_change(folder: pathlib.Path, now: dict) -> None:
    """Raises UserError when a folder was prepared from another source, other patterns or another class file.

    `now` may have a part of the keys of `own_folder.described`, of which the classes must be one.
    `like` of a class file may change: it says where training starts, and nothing of the labels.
    """
    before = own_folder.kept(folder)
    if before is None:
        return
    before, now = (row | {"classes": without_like(row["classes"])} for row in (before, now))
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        what = {"source": "another source", "classes": "another class file"}.get(changed[0], f"another {changed[0]}")
        raise UserError(f"{folder.parent} was prepared from {what}; {REMEDY}")


def without_like(content: dict) -> dict:
    """The plain values of a class file without what a class is like."""
    return content | {"classes": [{k: v for k, v in row.items() if k != "like"} for row in content["classes"]]}
