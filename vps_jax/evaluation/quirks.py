"""The quirks of the official scripts, each named; those that change no number of a whole truth are off by default.

A published number is made with all of them (spec: metrics 5). `choose(off=["void_class"])` gives the set that
lacks one. docs/evaluation_explained.md says what each does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vps_jax.types import UserError


class Quirks(NamedTuple):
    """True = as the official script does it.

    Attributes:
      json_area: (VPQ) area of a truth tube is what the json says; off: counted from the PNG, and a json that says
        otherwise is refused. The only one that is off unless asked for: on a whole truth it changes nothing.
      unlisted_truth: (VPQ) truth pixels whose id is in the PNG but not in the json count against the prediction on
        them; off: they are void.
      last_crowd: (VPQ) with several crowd tubes of one class only the last forgives false positives; off: all do.
      short_videos_absent: (VPQ) a video with fewer frames than the window is left out; off: it is one window.
      void_class: (STQ) predicted void is one more class of the mean of SQ, with IoU 0; off: it is no class.
      first_thing_crowd: (STQ) a video's first listed segment, when a thing, is left out of AQ; off: it is a track.
      crowd_tracks: (STQ) `iscrowd` is not looked at, crowds are tracks; off: they are left out of AQ.
      void_in_tracks: (STQ) pixels of a predicted track on truth void make the track larger; off: they do not count.
      drop_last_window: (VC) the last window of a video is not scored; off: it is.
      void_constant: (VC) truth void that stays void is consistent; off: void pixels are left out.
      ignore_truth: (VC) the prediction must be constant where the truth is, right or wrong; off: it must be right too.
      crowd_union: (AP) the union with a crowd is that of both tracks, as with any truth; off: the prediction alone, as
        in COCO.
    """

    json_area: bool = False
    unlisted_truth: bool = True
    last_crowd: bool = True
    short_videos_absent: bool = True
    void_class: bool = True
    first_thing_crowd: bool = True
    crowd_tracks: bool = True
    void_in_tracks: bool = True
    drop_last_window: bool = True
    void_constant: bool = True
    ignore_truth: bool = True
    crowd_union: bool = True


OFFICIAL = Quirks()


def choose(*, on: Sequence[str] = (), off: Sequence[str] = ()) -> Quirks:
    """The official quirks, with those named `on` and without those named `off`.

    Raises:
      UserError: a name that is none of them, or that is in both.
    """
    for name in (*on, *off):
        if name not in Quirks._fields:
            raise UserError(f"quirk {name!r} is not known; it must be one of {', '.join(Quirks._fields)}")
        if name in on and name in off:
            raise UserError(f"quirk {name!r} is asked for and left; name it once")
    return OFFICIAL._replace(**dict.fromkeys(on, True), **dict.fromkeys(off, False))


def without(*names: str) -> Quirks:
    """`choose(off=names)`."""
    return choose(off=names)
