"""Whether results can be handed in: every fault of a result folder by name, without any truth pixel.

What must be there is told by the truth's json (also one without segments, as for a test split), or where there is none
by the split's list and the frames of the data set.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from vps_jax.datasets.classes import class_table
from vps_jax.datasets.vipseg import truth_json
from vps_jax.evaluation import (
    archives,
    checked,
    counts,
    images,
    layouts,
    scoring,
    vipseg_folders,
    vspw_folders,
    ytvis_folders,
)
from vps_jax.evaluation.plan import keep_videos
from vps_jax.evaluation.vipseg_folders import FrameRecord, TruthRoot
from vps_jax.types import UserError

FRAME_FOLDERS = ("images", "imgs")  # converted, as downloaded


def check(
    truth: pathlib.Path, predictions: pathlib.Path, *, split: str, videos: Sequence[str] | None = None
) -> tuple[int, list[str]]:
    """Look at every frame of a result folder, zip file or result json.

    Args:
      truth: root of the data set, or YouTube-VIS' json.
      predictions: the results.
      split: split that they are of.
      videos: names of those to look at; None: all.

    Returns:
      Number of videos, and one line per fault.

    Raises:
      UserError: it is not known what the results should hold.
    """
    truth = pathlib.Path(truth)
    with scoring.one_line(f"{predictions}"), archives.opened(pathlib.Path(predictions)) as folder:
        spec, source = layouts.recognize(truth, split) or (None, None)
        reader = spec.truth if spec else ""
        if reader == vipseg_folders.__name__ or not reader and _listed(truth, split):
            expected = _expected(truth, split, videos)
            return len(expected.videos), list(_vipseg(expected, folder))
        if reader == vspw_folders.__name__:
            names = keep_videos(checked.read_list(source), videos, source)
            return len(names), [line for video in names for line in _complaint(_vspw, truth, folder, video)]
        if reader == ytvis_folders.__name__:
            return _ytvis(source, ytvis_folders.results_json(folder))
    raise UserError(f"{truth}: no frames of split {split!r} are known; expected its json, or list and frames")


def _listed(root: pathlib.Path, split: str) -> bool:
    """Whether a VIPSeg root has the split's list and a folder of frames, if no json."""
    return (root / f"{split}.txt").is_file() and any((root / name).is_dir() for name in FRAME_FOLDERS)


def _expected(root: pathlib.Path, split: str, videos: Sequence[str] | None) -> TruthRoot:
    """Videos and frames of a VIPSeg root."""
    if truth_json(root, split).is_file():
        return vipseg_folders.read_truth(root, split, videos=videos, pixels=False)
    source = root / f"{split}.txt"
    folder = next(root / name for name in FRAME_FOLDERS if (root / name).is_dir())
    table = class_table("vipseg")
    none = counts.make_segments([])
    found = {}
    for video in keep_videos(checked.read_list(source), videos, source):
        if not (folder / video).is_dir():
            raise UserError(f"{folder / video}: no such folder; expected the frames of video {video} there")
        stems = sorted(path.stem for path in (folder / video).iterdir() if path.suffix in (".jpg", ".png"))
        found[video] = [FrameRecord(stem, folder / video / stem, none, source) for stem in stems]
    sizes = {video: [None] * len(frames) for video, frames in found.items()}
    return TruthRoot(source, table, frozenset(range(len(table.names))), found, sizes)


def _complaint(look, *arguments) -> list[str]:
    """The lines of a function, and the one that it ended with."""
    lines = []
    try:
        for line in look(*arguments):
            lines.append(line)
    except UserError as error:
        lines.append(str(error))
    return lines


def _vipseg(expected: TruthRoot, folder: pathlib.Path) -> Iterator[str]:
    """Faults of a result folder in VIPSeg's layout."""
    source = folder / "pred.json"
    try:
        with checked.place(source):
            found = vipseg_folders.annotations(checked.mapping(checked.read_json(source), "the file"), source)
    except UserError as error:
        yield str(error)
        return
    for video in expected.videos:
        if video not in found:
            yield f"{source}: video {video} is missing"
        else:
            yield from _complaint(_vipseg_video, expected, folder, video, found[video])


def _vipseg_video(expected: TruthRoot, folder: pathlib.Path, video: str, frames: list) -> Iterator[str]:
    records = vipseg_folders.read_video(frames, video, folder, expected)
    first = None
    for record, size in zip(records, expected.sizes[video], strict=True):
        try:
            pixels = images.read_png(record.png, kind="RGB")
        except UserError as error:
            yield str(error)
            continue
        first = first or pixels.shape[:2]
        wanted = size or first
        if pixels.shape[:2] != wanted:
            (h, w), (wh, ww) = pixels.shape[:2], wanted
            yield f"{record.png}: size is {w}x{h}, expected {ww}x{wh}"
        yield from _wrong_ids(record, pixels)


def _wrong_ids(record: FrameRecord, pixels: np.ndarray) -> Iterator[str]:
    """Ids that the json and the PNG do not share, B, G, R `[h, w, 3]`."""
    painted = set(np.unique(counts.runs(pixels)[1][0]).tolist()) - {counts.VOID}
    listed = set(record.segments.ids.tolist())
    if painted == listed:
        return
    swapped = {(number & 255) << 16 | number & 0xFF00 | number >> 16 for number in painted}
    if swapped == listed:
        yield (
            f"{record.png}: red and blue are exchanged: its ids are those of {record.source.name} with R for B; OpenCV "
            "writes B, G, R, so reverse the channels before cv2.imwrite"
        )
        return
    name = record.source.name
    for number in sorted(listed - painted)[:1]:
        yield f"{record.png}: id {number} is listed in {name} but has no pixel ({len(listed - painted)} such)"
    for number in sorted(painted - listed)[:1]:
        yield f"{record.png}: id {number} is in the PNG but not in {name} ({len(painted - listed)} such)"


def _vspw(root: pathlib.Path, folder: pathlib.Path, video: str) -> Iterator[str]:
    """Faults of one video of class maps."""
    frames = root / "data" / video / "origin"
    stems = {path.stem for path in frames.iterdir()} if frames.is_dir() else None
    found = vipseg_folders.png_stems(folder / video, f"the predictions of video {video}")
    if stems is not None:
        yield from (f"{folder / video / stem}.png: no such file" for stem in sorted(stems - found))
        yield from (f"{folder / video / stem}.png: the video has no such frame" for stem in sorted(found - stems))
    number = len(class_table("vspw").names)
    for stem in sorted(found):
        path = folder / video / f"{stem}.png"
        try:
            greatest = int(images.read_png(path, kind="grey").max())
        except UserError as error:
            yield str(error)
            continue
        if greatest >= number:
            yield f"{path}: class {greatest}; expected 0..{number - 1} (the class, not class + 1)"


def _ytvis(truth: pathlib.Path, source: pathlib.Path) -> tuple[int, list[str]]:
    """Faults of a result json; the truth's needs videos and categories only."""
    try:
        _, videos = ytvis_folders.read_files(truth, source, annotated=False)
    except UserError as error:
        return 0, [str(error)]
    lines = []
    for video in videos:
        try:
            ytvis_folders.tracks(video)
        except UserError as error:
            lines.append(str(error))
    return len(videos), lines
