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
    cityscapes_vps_files,
    counts,
    images,
    layouts,
    scoring,
    step_folders,
    vipseg_folders,
    vspw_folders,
    ytvis_folders,
)
from vps_jax.evaluation.plan import keep_videos
from vps_jax.evaluation.vipseg_folders import FrameRecord, TruthRoot
from vps_jax.types import UserError

EXCHANGED = "red and blue are exchanged; OpenCV writes B, G, R, so reverse the channels before cv2.imwrite"
FRAME_FOLDERS = ("images", "imgs")  # converted, as downloaded
FRAME_SUFFIXES = (".jpg", ".png")


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
            return _ytvis(source, ytvis_folders.results_json(folder), videos)
        if reader == step_folders.__name__:
            names = step_folders.sequences(source, videos)
            results = step_folders.results_folder(folder, source)
            return len(names), [line for video in names for line in _complaint(_step, source, results, video)]
        if reader == cityscapes_vps_files.__name__:
            return _cityscapes(source, folder, videos)
    if reader:
        raise UserError(f"{truth}: {spec.title} has no submission check; score the results instead, without --check")
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
    records = {}
    for video in keep_videos(checked.read_list(source), videos, source):
        if not (folder / video).is_dir():
            raise UserError(f"{folder / video}: no such folder; expected the frames of video {video} there")
        stems = sorted(path.stem for path in (folder / video).iterdir() if path.suffix in FRAME_SUFFIXES)
        records[video] = [FrameRecord(stem, folder / video / stem, none, source) for stem in stems]
    sizes = {video: [None] * len(frames) for video, frames in records.items()}
    return TruthRoot(source, table, frozenset(range(len(table.names))), records, sizes)


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
            annotated = vipseg_folders.annotations(checked.mapping(checked.read_json(source), "the file"), source)
    except UserError as error:
        yield str(error)
        return
    for video in expected.videos:
        if video not in annotated:
            yield f"{source}: video {video} is missing"
        else:
            yield from _complaint(_vipseg_video, expected, folder, video, annotated[video])


def _vipseg_video(expected: TruthRoot, folder: pathlib.Path, video: str, frames: list) -> Iterator[str]:
    records = vipseg_folders.read_video(frames, video, folder, expected)
    yield from _painted(records, expected.sizes[video])


def _painted(records: Sequence[FrameRecord], sizes: Sequence[tuple[int, int] | None]) -> Iterator[str]:
    """Faults of the PNGs of one video; sizes are (height, width), None where only one size per video is known."""
    first = None
    for record, size in zip(records, sizes, strict=True):
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
        yield (f"{record.png}: {EXCHANGED} (its ids are those of {record.source.name} with R for B)")
        return
    name = record.source.name
    for number in sorted(listed - painted)[:1]:
        yield f"{record.png}: id {number} is listed in {name} but has no pixel ({len(listed - painted)} such)"
    for number in sorted(painted - listed)[:1]:
        yield f"{record.png}: id {number} is in the PNG but not in {name} ({len(painted - listed)} such)"


def _vspw(root: pathlib.Path, folder: pathlib.Path, video: str) -> Iterator[str]:
    """Faults of one video of class maps; its frames are those of `origin`, or else those with a mask."""
    frames, masks = root / "data" / video / "origin", root / "data" / video / "mask"
    if frames.is_dir():
        stems = {path.stem for path in frames.iterdir() if path.suffix in FRAME_SUFFIXES}
    else:
        stems = vipseg_folders.png_stems(masks, f"the masks of video {video}, or its frames in {frames}")
    given = vipseg_folders.png_stems(folder / video, f"the predictions of video {video}")
    yield from (f"{folder / video / stem}.png: no such file" for stem in sorted(stems - given))
    yield from (f"{folder / video / stem}.png: the video has no such frame" for stem in sorted(given - stems))
    number = len(class_table("vspw").names)
    first = None
    for stem in sorted(given & stems):
        path, mask = folder / video / f"{stem}.png", masks / f"{stem}.png"
        try:
            size = images.png_size(mask) if mask.is_file() else first
            pixels = images.read_png(path, kind="grey", size=size)
        except UserError as error:
            yield str(error)
            continue
        first = first or pixels.shape
        if (greatest := int(pixels.max())) >= number:
            yield f"{path}: class {greatest}; expected 0..{number - 1} (the class, not class + 1)"


def _ytvis(truth: pathlib.Path, source: pathlib.Path, wanted: Sequence[str] | None) -> tuple[int, list[str]]:
    """Faults of a result json; the truth's needs videos and categories only."""
    try:
        _, videos = ytvis_folders.read_files(truth, source, annotated=False)
    except UserError as error:
        return 0, [str(error)]
    chosen = set(keep_videos([str(video.video) for video in videos], wanted, truth))
    videos = [video for video in videos if str(video.video) in chosen]
    return len(videos), [line for video in videos for line in _complaint(_tracks, video)]


def _tracks(video: ytvis_folders.VideoTracks) -> Iterator[str]:
    """No line; parsing the masks raises the first fault."""
    ytvis_folders.tracks(video)
    return iter(())


def _step(truth: pathlib.Path, results: pathlib.Path, video: str) -> Iterator[str]:
    """Faults of one sequence of KITTI-STEP; of the truth's maps only names and sizes are read."""
    folder = results / video
    stems = vipseg_folders.png_stems(truth / video, f"the maps of sequence {video}")
    given = vipseg_folders.png_stems(folder, f"the {len(stems)} predicted maps of sequence {video}")
    yield from (f"{folder / stem}.png: no such file" for stem in sorted(stems - given))
    yield from (f"{folder / stem}.png: the sequence has no such frame" for stem in sorted(given - stems))
    classes = class_table("kitti_step")
    for stem in sorted(stems & given):
        path = folder / f"{stem}.png"
        try:
            pixels = images.read_png(path, kind="RGB", size=images.png_size(truth / video / path.name))
            if _step_reads(pixels[..., ::-1], path) and not _step_reads(pixels, path):
                yield f"{path}: {EXCHANGED}"
            else:
                step_folders.read_segments(pixels, classes, truth=False, path=path)
        except UserError as error:
            yield str(error)


def _step_reads(pixels: np.ndarray, path: pathlib.Path) -> bool:
    """Whether a map `[h, w, 3]` has only known classes, and numbers only at things."""
    classes = class_table("kitti_step")
    try:
        step_folders.read_segments(pixels, classes, truth=False, path=path)
    except UserError:
        return False
    blue, green, red = np.moveaxis(pixels, -1, 0)
    return not ((blue | green) != 0)[np.isin(red, classes.thing_ids, invert=True) & (red != step_folders.VOID)].any()


def _cityscapes(source: pathlib.Path, folder: pathlib.Path, wanted: Sequence[str] | None) -> tuple[int, list[str]]:
    """Faults of flat results; of the truth only the json is read."""
    truth = cityscapes_vps_files.read_truth(source, class_table("cityscapes_vps"))
    with checked.place(source):
        sizes = cityscapes_vps_files.sizes(truth)
    by_video = cityscapes_vps_files.images_of_videos(truth.rows)
    chosen = keep_videos(list(by_video), wanted, source)
    results, pngs = folder / "pred.json", folder / "pan_pred"
    try:
        rows = cityscapes_vps_files.read_rows(results)
        files = cityscapes_vps_files.pngs(pngs, len(truth.rows), source)
    except UserError as error:
        return len(chosen), [str(error)]
    lines = []
    for video in chosen:
        records = []
        for name in by_video[video]:
            png = files.get(name, pngs / f"{name}.png")
            try:
                if name not in rows:
                    raise UserError(f"{results}: image {name} is missing")
                records.append(
                    cityscapes_vps_files.read_record(name, rows[name], png, results, truth.categories, truth=False)
                )
            except UserError as error:
                lines.append(str(error))
        lines += _painted(records, [sizes.get(record.stem) for record in records])
    return len(chosen), lines
