"""Video files of a user's own data, unpacked into images. A label names its frame by the number, counted from 0."""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vps_jax import files
from vps_jax.data.own_prepare import FRAMES
from vps_jax.datasets.own import FORMS, Own, frames_of
from vps_jax.datasets.spec import SPLITS
from vps_jax.datasets.tree_patterns import doubled, files_of, fitting, number_of
from vps_jax.media.video import Video
from vps_jax.media.video_files import VIDEO_SUFFIXES, frame_name, open_video_file
from vps_jax.types import UserError

MADE_FROM = ".made_from"  # in a video's folder: see `origin`
IMAGES = "{split}/{video}/{frame}.jpg"
BYTES_PER_PIXEL = 0.5  # of a JPEG, about


class VideoFile(NamedTuple):
    """A video to unpack.

    Attributes:
      video: the opened file.
      folder: of its images.
      labels: number of a frame -> name of its label.
      rest: whether frames without a label are unpacked too.
    """

    video: Video
    folder: pathlib.Path
    labels: dict[int, str]
    rest: bool


def unpacked(own: Own, source: pathlib.Path, out: pathlib.Path, *, again: bool = False, progress: bool = True) -> Own:
    """The same data with images in `out/frames` in place of video files; unchanged where there are images already.

    Of `train` the labelled frames are unpacked, where labels are PNGs, and of the other splits all, which are
    predicted. A video that was unpacked before is left as it is.

    Args:
      own: what the user says; video files are looked for where `--frames` has the folder of a video.
      source: folder of the data.
      out: folder to write.
      again: unpack a video anew that has changed, instead of refusing it.
      progress: show a progress bar.

    Raises:
      UserError: there are images beside video files, or two files of one video; a video cannot be read, has changed,
        or is shorter than its labels say; no video of `train` has a label; no space.
    """
    splits = [split for split in SPLITS if split == "train" or "{split}" in own.frames]
    found = {split: files_of_videos(own, source, split) for split in splits}
    if images := [path for split in splits for path in frames_of(source, split, own).values()]:
        refuse_both(images[0], [path for paths in found.values() for path in paths.values()])
        return own
    todo = [video for split in splits for video in video_files(own, source, out / FRAMES, split, found[split])]
    refuse_unlabelled([one for one in todo if not one.rest], own)
    if not todo:
        return own
    left = [one for one in todo if not is_unpacked(one, again)]
    pixels = sum(one.video.num_frames * one.video.size()[0] * one.video.size()[1] for one in left)
    files.require_space(out, int(pixels * BYTES_PER_PIXEL), "the frames of the videos")
    total = sum(one.video.num_frames for one in left)
    with files.progress_bar("unpack", total=total, show=progress) as advance:
        for one in left:
            unpack(one, advance)
    return dataclasses.replace(own, frames=IMAGES, unpacked=str(out / FRAMES))


def files_of_videos(own: Own, source: pathlib.Path, split: str) -> dict[str, pathlib.Path]:
    """Video files of a split by the name of their video.

    Raises:
      UserError: two are of one video.
    """
    found = fitting(source, own.frames.partition("/{frame}")[0], split, VIDEO_SUFFIXES)
    found = [(key, path) for key, path in found if path.is_file()]
    for path, other in doubled(found):
        raise UserError(f"{path} and {other.name} are one video; expected one file for each: rename or remove one")
    return {name: path for (name, _), path in found}


def refuse_both(image: pathlib.Path, videos: list[pathlib.Path]) -> None:
    """Raises UserError when there are video files where images are too."""
    if videos:
        raise UserError(
            f"{image} is an image and {videos[0]} a video file, one of {len(videos)}; expected one kind in a source: "
            "unpack those videos into folders of images, or move them away"
        )


def refuse_unlabelled(videos: list[VideoFile], own: Own) -> None:
    """Raises UserError when no video of which the labelled frames are wanted has one."""
    if videos and not any(one.labels for one in videos):
        raise UserError(
            f"{videos[0].video.source}: none of the {len(videos)} video files of train has a label; expected "
            f"--labels {own.labels!r}, with the number of the frame counted from 0"
        )


def video_files(
    own: Own, source: pathlib.Path, folder: pathlib.Path, split: str, found: dict[str, pathlib.Path]
) -> Iterator[VideoFile]:
    """The video files of a split with the names of their labels."""
    labels: dict[str, dict[int, str]] = {}
    by_file = "labels" in FORMS[own.form].needs
    for video, frame in files_of(source, own.labels, split, (".png",)) if by_file else ():
        if (number := number_of(frame)) is not None:
            labels.setdefault(video, {})[number] = frame
    for name, path in found.items():
        rest = split != "train" or not by_file
        yield VideoFile(open_video_file(path), folder / split / name, labels.get(name, {}), rest)


def is_unpacked(one: VideoFile, again: bool) -> bool:
    """Whether the images of a video are there; with `again` those of another file are removed.

    Raises:
      UserError: they are of another file or of other labels.
    """
    if not one.folder.is_dir():
        return False
    made_from = one.folder / MADE_FROM
    if made_from.is_file() and made_from.read_text() == origin(one):
        return True
    if not again:
        raise UserError(
            f"{one.folder} is not of {one.video.source}, or that or its labels have changed; give --again to replace it"
        )
    shutil.rmtree(one.folder)
    return False


def origin(one: VideoFile) -> str:
    """What decides the images of a video: its file and its labels."""
    return "\n".join([one.video.fingerprint(), *one.labels.values()])


def unpack(one: VideoFile, advance: Callable[[], None]) -> None:
    """Write the images of a video; its folder is there when all are.

    Raises:
      UserError: a frame cannot be decoded, a label has no frame, or the disk refuses.
    """
    last = -1
    try:
        with files.fresh_folder(one.folder) as folder:
            for last, frame in enumerate(one.video.frames()):
                advance()
                if last in one.labels or one.rest:
                    files.write_image(folder / f"{name_of(last, one.labels)}.jpg", frame.image)
            for number in sorted(one.labels):
                if number > last:
                    raise UserError(
                        f"{one.video.source}: no frame for label {one.labels[number]}; expected a number from 0 to "
                        f"{last}, counted from 0"
                    )
            files.write_text(folder / MADE_FROM, origin(one))
    except OSError as error:
        raise UserError(f"{one.folder} cannot be written ({error.strerror}); make room and start again") from error


def name_of(number: int, labels: dict[int, str]) -> str:
    """Name of the image of a frame: that of its label, or one in the manner of the first label's."""
    if number in labels or not labels:
        return labels.get(number, frame_name(number))
    head, digits, tail = re.fullmatch(r"(.*?)(\d+)(\D*)", next(iter(labels.values()))).groups()
    return f"{head}{number:0{len(digits)}d}{tail}"
