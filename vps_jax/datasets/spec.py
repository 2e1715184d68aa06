"""What a data set is: its classes, label code and layouts on disk, who reads its truth and who writes its results."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.labels import LabelCode, panoptic_value
from vps_jax.files import read_lines, visible
from vps_jax.types import UserError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SPLITS = ("train", "val", "test")


class VideoFiles(NamedTuple):
    """Files of one video, or of a single image.

    Attributes:
      name: video id.
      images: JPEG, PNG or WebP files in order.
      masks: the mask file of each image, None for one that has none; None where the split has no mask files.
      notes: what the data set's `read_label` needs beside the mask file; None where it needs nothing.
      number: id of the video in the data set's json, where results must have it.
      results: positions of the images that results are asked for; None for all.
    """

    name: str
    images: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path | None, ...] | None
    notes: Any = None
    number: int | str | None = None
    results: tuple[int, ...] | None = None

    @property
    def labelled(self) -> bool:
        """Whether the split has labels."""
        return self.masks is not None or self.notes is not None


class LabelMap(NamedTuple):
    """Labels of one frame.

    Attributes:
      values: label values `[h, w]`, of the data set's code.
      combinations: what overlapping masks cover together: pixels of value `spec.first_combination + j` belong to every
        one of the label values `combinations[j]`.
      findings: counts of what is worth a line in the report, by its words.
    """

    values: np.ndarray
    combinations: tuple[tuple[int, ...], ...] = ()
    findings: Mapping[str, int] = {}


@dataclass(frozen=True)
class Layout:
    """One way in which a data set is stored on disk.

    Attributes:
      name: in messages, such as `raw`.
      needs: what a root must hold, as patterns below it; alternatives are separated by `|`.
      splits: root -> the splits that are there, of `train`, `val`, `test`.
      videos: (root, split) -> the videos to prepare, with masks where the split has them. Raises UserError.
      truth: pattern of the file or folder that says that the truth of `{split}` is there; empty: none can be scored.
      predicted: (root, split) -> the videos to predict, in the order of the truth; None: those of `videos`.
      strays: (root, split) -> one line per file of the split that no list or image accounts for; with the first split
        comes what no split accounts for.
    """

    name: str
    needs: tuple[str, ...]
    splits: Callable[[pathlib.Path], tuple[str, ...]]
    videos: Callable[[pathlib.Path, str], list[VideoFiles]]
    truth: str = ""
    predicted: Callable[[pathlib.Path, str], list[VideoFiles]] | None = None
    strays: Callable[[pathlib.Path, str], list[str]] | None = None

    def missing(self, root: pathlib.Path) -> list[str]:
        """Which of `needs` the root lacks."""
        return [need for need in self.needs if not any(any(root.glob(one)) for one in need.split("|"))]


@dataclass(frozen=True, eq=False)
class DatasetSpec:
    """One data set. Functions of higher layers are named, `module:name`, and imported when they are asked for.

    Attributes:
      name: of the builder, the prepared folder and the layout of results.
      title: as its authors write it.
      classes: its class table.
      labels: code of the label maps in prepared records.
      layouts: ways in which it is stored on disk; the first one that fits a root is used.
      read_label: (video, index) -> labels of a frame. Raises `label_files.BadFrame` for a mask that cannot be used.
      scan: looks through all masks of a video and fills in its `notes`, before `read_label` is asked; None: no need.
      shrink: (short side, longest long side) to which larger frames are shrunk before they are stored; None keeps them.
      truth: module that reads truth and results for scoring by its `plan`; empty for a set that is not scored.
      writer: writer of result folders, `module:name`.
      metrics: names of those that mean something for this data set; reports show the first ones.
      inference: published inference settings, keys of `config.ClipInference`.
      fps: of the labelled frames.
      sparse: whether frames without a mask are expected, and therefore no problem for `check`.
    """

    name: str
    title: str
    classes: ClassTable
    labels: LabelCode
    layouts: tuple[Layout, ...]
    read_label: Callable[[VideoFiles, int], LabelMap]
    scan: Callable[[VideoFiles], VideoFiles] | None = None
    shrink: tuple[int, int] | None = None
    truth: str = ""
    writer: str = ""
    metrics: tuple[str, ...] = ()
    inference: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fps: float = 6.0
    sparse: bool = False

    @property
    def first_combination(self) -> int:
        """Value of the first combination of overlapping instances: those above the last class are free."""
        return panoptic_value(len(self.classes.names), 0)

    def recognizes(self, root: pathlib.Path) -> bool:
        """Whether a folder is a root of this data set."""
        return any(not layout.missing(root) for layout in self.layouts)

    def layout(self, root: pathlib.Path) -> Layout:
        """The layout of a root.

        Raises:
          UserError: none fits; names what was looked for first, and the variant of which a part is there.
        """
        for layout in self.layouts:
            if not layout.missing(root):
                return layout
        half = [layout for layout in self.layouts if len(layout.missing(root)) < len(layout.needs)]
        nearest = min(half or self.layouts[:1], key=lambda layout: len(layout.missing(root)))
        lacks = nearest.missing(root)[0]
        for name in lacks.split("|"):
            if (root / f"{name}.zip").is_file():
                raise UserError(f"{root / name}.zip is still packed; expected the folder {name}: unpack it there")
        lacks = lacks.replace("|", " or ")
        others = [f"{layout.name.removeprefix('as ')} ({', '.join(layout.needs)})" for layout in self.layouts]
        others = " or ".join(others)
        state = f"its layout {nearest.name!r} is there in part" if half else "nothing of it is there"
        state = state if root.exists() else "there is no such folder"
        raise UserError(f"{root}: no {lacks}; {state}; expected {self.title} as {others.replace('|', ' or ')}")

    def splits(self, root: pathlib.Path) -> tuple[str, ...]:
        """Splits that a root has."""
        return self.layout(root).splits(root)

    def videos(self, root: pathlib.Path, split: str) -> list[VideoFiles]:
        """Videos of a split to prepare."""
        return self.layout(root).videos(root, split)

    def predicted(self, root: pathlib.Path, split: str) -> list[VideoFiles]:
        """Videos of a split to predict, in the order of the truth.

        Raises:
          UserError: the root has no such split, or a listed video is missing.
        """
        layout = self.layout(root)
        have = layout.splits(root)
        if split not in have:
            raise UserError(f"{root}: no split {split!r}; expected one of {', '.join(have)}: choose another split")
        return (layout.predicted or layout.videos)(root, split)

    def truth_file(self, root: pathlib.Path, split: str) -> pathlib.Path | None:
        """The file or folder that says that the truth of a split is there, or None where it is not."""
        for layout in self.layouts:
            path = root / layout.truth.format(split=split)
            if layout.truth and not layout.missing(root) and path.exists():
                return path
        return None


def frame_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """JPEG, PNG and WebP files of a folder in the order of their names."""
    return visible(folder, FRAME_SUFFIXES)


def paired(name: str, images: pathlib.Path, masks: pathlib.Path | None) -> VideoFiles:
    """A video from its folder of images and its folder of PNG masks with the same stems (None: there are no masks)."""
    frames = tuple(frame_files(images))
    if masks is None:
        return VideoFiles(name, frames, None)
    there = {path.stem: path for path in visible(masks, ".png")}
    return VideoFiles(name, frames, tuple(there.get(frame.stem) for frame in frames))


def listed_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits of which `<split>.txt` is there."""
    return tuple(split for split in SPLITS if (root / f"{split}.txt").is_file())


def named_frames(name: str, folder: pathlib.Path, stems: Sequence[str] | None = None) -> VideoFiles:
    """The frames of a listed video, all or the named ones, without masks.

    Raises:
      UserError: the folder or a frame is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: video folder is missing; expected the frames of a listed video, restore it")
    there = {path.stem: path for path in frame_files(folder)}
    if not there:
        raise UserError(f"{folder}: no .jpg or .png frames; expected the frames of a listed video, restore them")
    missing = [stem for stem in stems or () if stem not in there]
    if missing:
        raise UserError(f"{folder}: frame {missing[0]} is missing; expected {len(stems)} listed frames, restore it")
    return VideoFiles(name, tuple(there[stem] for stem in stems) if stems else tuple(there.values()), None)


def unpaired_masks(images: pathlib.Path, masks: pathlib.Path) -> list[str]:
    """Lines for masks of a video that have no image."""
    stems = {path.stem for path in frame_files(images)}
    return [f"{path}: mask without an image" for path in visible(masks, ".png") if path.stem not in stems]


def unlisted(folder: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Lines for the videos of a folder that no split list names, and for lists that are missing."""
    named = {name for split in listed_splits(root) for name in read_lines(root / f"{split}.txt")}
    lines = [f"{root / split}.txt: the split list is missing" for split in SPLITS if split not in listed_splits(root)]
    return lines + [
        f"{path.name}: in no split list" for path in visible(folder) if path.is_dir() and path.name not in named
    ]
