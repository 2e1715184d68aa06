"""A user's own data made ready for training: frames of video files, records, truth and picture, in one folder."""

import pathlib
from typing import NamedTuple

from vps_jax.data import own_prepare, own_swap
from vps_jax.datasets import own_folder
from vps_jax.datasets.own import Own
from vps_jax.runs import own_preview, own_videos


class Prepared(NamedTuple):
    """The report of each split, see `data.prepare.describe_report`, and the picture; None where no class is seen."""

    report: dict[str, dict]
    preview: pathlib.Path | None


def prepare(
    own: Own,
    source: pathlib.Path,
    out: pathlib.Path,
    *,
    again: bool = False,
    skip_bad: bool = False,
    short_side: int | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Prepared:
    """Write all of a set; one that is finished and of the same files is only reported.

    Args:
      own: what the user says of the data.
      source: folder of the data.
      out: folder to write.
      again: make the set anew beside the one that is there, which it replaces in the end.
      skip_bad, short_side, workers, progress: as of `data.prepare.prepare`.

    Raises:
      UserError: as of `own_videos.unpacked` and `own_prepare.prepare`. With `again` the old set is whole then.
    """
    own_swap.finish(out)
    now, place = own_folder.described(own, source), out
    if again:
        place = own_swap.begin(out, now | {"skip_bad": skip_bad, "short_side": short_side})
    else:  # before frames of other videos come among those that are there
        own_prepare.refuse_change(out / own_prepare.TRUTH, {key: now[key] for key in ("source", "classes")})
    own = own_videos.unpacked(own, source, place, again=again, progress=progress)
    report = own_prepare.prepare(
        own, source, place, replace=again, skip_bad=skip_bad, short_side=short_side, workers=workers, progress=progress
    )
    picture = own_preview.write(place, report)
    if again:
        own_swap.take_place(out)
    own_swap.drop(out)
    return Prepared(report, picture and out / picture.name)
