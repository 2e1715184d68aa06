"""Error anatomy: what each kind of error costs in VPQ, found by mending that kind alone and scoring again.

No published tool says this. In every frame each truth segment gets at most one cause, from the pixels it shares with
the predicted segments (crowd and void truth take no part):

- found: a predicted segment, its home, has IoU above a half with it, whatever the class. Its class may be wrong
  (`wrong_class`), its id may be another than in most frames (`identity`), its outline may be off (`boundary`).
- `split`: two or more predicted segments of its class lie mostly inside it.
- `void`: most of it is predicted as nothing.
- `merged`: most of it lies in a segment that holds most of another truth segment too and is of the class of one: when
  it is the home of one, the others of its class are merged; when of none, all are.
- `boundary`: one segment of its class is there, but too large or too small to be its home.
- `missed`: none of these; it may lie in the home of a segment of another class.

`extra` are predicted segments that belong to no truth segment. Mending works on the counts: a cell is the set of pixels
of one frame with one truth id and one predicted id, and mending gives cells another predicted id, or a segment another
class. Costs overlap, so their sum is not the distance to 100.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import counts as counting
from vps_jax.evaluation.protocol import SCORES, Settings, Table
from vps_jax.evaluation.quirks import OFFICIAL, Quirks
from vps_jax.evaluation.vpq import VideoPQ

CAUSES = ("missed", "wrong_class", "split", "merged", "identity", "void", "boundary", "extra")
NONE = -1


class Frame(NamedTuple):
    """One frame as a matrix. `g` truth ids and `p` predicted ids of the whole video, index 0 is void on both sides.

    Attributes:
      cells: int64 `[g, p]`, shared pixels.
      truth_class: int64 `[g]`, -1 where not listed.
      crowd: bool `[g]`.
      forgives: bool `[g]`, crowds on which a prediction of their class is not wrong.
      class_: int64 `[p]`, -1 where not listed.
    """

    cells: np.ndarray
    truth_class: np.ndarray
    crowd: np.ndarray
    forgives: np.ndarray
    class_: np.ndarray


class Diagnosis(NamedTuple):
    """What is wrong in one frame.

    Attributes:
      cause: `[g]` name of the cause, `found`, or empty where no truth segment is.
      main: int64 `[g]`, the predicted segment that stands for the truth segment: home, largest piece, or NONE.
      host: int64 `[p]`, the truth segment in which a predicted segment mostly lies, or NONE.
      pieces: bool `[g, p]`: of its class and mostly inside it.
      covers: bool `[g, p]`: most of the truth segment lies in it.
      extra: bool `[p]`.
    """

    cause: np.ndarray
    main: np.ndarray
    host: np.ndarray
    pieces: np.ndarray
    covers: np.ndarray
    extra: np.ndarray


def diagnose(frame: Frame) -> Diagnosis:
    """Find each truth segment's cause (see the head of this module)."""
    real = (frame.truth_class >= 0) & ~frame.crowd & (frame.cells.sum(axis=1) > 0)  # [g]
    cells = np.where(real[:, None], frame.cells, 0)
    size, held = cells.sum(axis=1), cells.sum(axis=0)  # [g], [p]
    listed = frame.class_ >= 0
    same = frame.truth_class[:, None] == frame.class_  # [g, p]
    iou = np.where(listed & real[:, None], cells / np.maximum(size[:, None] + held - cells, 1), 0.0)
    covers = (2 * cells > size[:, None]) & listed
    host = np.where((2 * cells.max(axis=0) > held) & listed, cells.argmax(axis=0), NONE)
    pieces = (host == np.arange(len(size))[:, None]) & same & real[:, None]
    # a home of the wrong class is none when the segment holds a truth segment of its own class
    home = (iou > 0.5) & (same | ~(covers & same).any(axis=0))

    diagnosis = Diagnosis(np.full(len(size), "", "U11"), np.full(len(size), NONE), host, pieces, covers, ~listed)
    for g in np.flatnonzero(real):
        diagnosis.cause[g], diagnosis.main[g] = _cause(g, cells, same, home, diagnosis)
    used = np.isin(np.arange(len(held)), diagnosis.main) | pieces.any(axis=0)
    used |= covers[diagnosis.cause == "merged"].any(axis=0)
    forgiven = frame.cells[0] + np.where(frame.forgives[:, None] & same, frame.cells, 0).sum(axis=0)
    return diagnosis._replace(extra=listed & ~used & (2 * forgiven <= frame.cells.sum(axis=0)))


def _cause(g: int, cells: np.ndarray, same: np.ndarray, home: np.ndarray, diagnosis: Diagnosis) -> tuple[str, int]:
    """Cause and main segment of one truth segment."""
    if home[g].any():
        return "found", int(home[g].argmax())
    inside = np.flatnonzero(diagnosis.pieces[g])
    largest = int(inside[cells[g, inside].argmax()]) if len(inside) else NONE
    if len(inside) > 1:
        return "split", largest
    if 2 * cells[g, 0] > cells[g].sum():
        return "void", largest
    if len(inside):
        return "boundary", largest
    if not diagnosis.covers[g].any():
        return "missed", NONE
    p = int(diagnosis.covers[g].argmax())
    held = diagnosis.covers[:, p]
    if home[:, p].any():
        return ("merged" if same[g, p] else "missed"), NONE
    if held.sum() > 1 and (held & same[:, p]).any():
        return "merged", NONE
    return ("boundary", p) if same[g, p] or diagnosis.host[p] == g else ("missed", NONE)


def _frames(counts: counting.VideoCounts, quirks: Quirks) -> list[Frame]:
    truth, prediction = counts.truth, counts.prediction
    frames = []
    for t, shared in enumerate(counts.shared):
        cells = np.zeros((len(truth.ids), len(prediction.ids)), np.int64)
        cells[counts.pair_truth, counts.pair_prediction] = shared
        crowd, class_ = truth.crowd[t], truth.categories[t]
        forgives = crowd.copy()
        if quirks.last_crowd:
            later = truth.order[t][:, None] < truth.order[t]  # [g, g]
            forgives &= ~(later & crowd & (class_[:, None] == class_)).any(axis=1)
        frames.append(Frame(cells, class_, crowd, forgives, prediction.categories[t]))
    return frames


def owners(frames: list[Frame], diagnoses: list[Diagnosis]) -> np.ndarray:
    """The one predicted id that each truth id should have through the video, int64 `[g]`, NONE without any.

    One to one, and the most pixels in frames where the truth segment is found.
    """
    from scipy.optimize import linear_sum_assignment  # half a second of import that no other score pays

    weight = np.zeros(frames[0].cells.shape, np.int64)
    for frame, diagnosis in zip(frames, diagnoses, strict=True):
        whole = np.flatnonzero(diagnosis.cause == "found")
        weight[whole, diagnosis.main[whole]] += frame.cells[whole, diagnosis.main[whole]]
    owner = np.full(len(weight), NONE)
    rows, columns = linear_sum_assignment(weight, maximize=True)
    shared = weight[rows, columns] > 0
    owner[rows[shared]] = columns[shared]
    return owner


class _Mending:
    """One frame being mended: the predicted label of each cell, and each label's class.

    Labels are indices of the video's predicted ids; `p + g` is a new label for truth id `g`.
    """

    def __init__(self, frame: Frame, diagnosis: Diagnosis, owner: np.ndarray):
        self.frame, self.diagnosis, self.owner = frame, diagnosis, owner
        g, p = frame.cells.shape
        self.labels = np.broadcast_to(np.arange(p), (g, p)).copy()
        self.classes = np.concatenate([frame.class_, np.full(g, -1)])  # [p + g]

    def rows(self, cause: str) -> np.ndarray:
        return np.flatnonzero(self.diagnosis.cause == cause)

    def paint(self, g: int, cells: np.ndarray) -> None:
        """Give cells of truth segment g (bool `[p]`) its own label and class: main, else owner, else a new one."""
        label = self.diagnosis.main[g]
        if label == NONE:
            owner = self.owner[g]
            taken = owner != NONE and owner in self.diagnosis.main
            label = len(self.frame.class_) + g if owner == NONE or taken else owner
            self.classes[label] = self.frame.truth_class[g]
        self.labels[g, cells] = label

    def missed(self) -> None:
        for g in self.rows("missed"):
            self.paint(g, np.ones(len(self.frame.class_), bool))

    def wrong_class(self) -> None:
        for g in self.rows("found"):
            self.classes[self.diagnosis.main[g]] = self.frame.truth_class[g]

    def split(self) -> None:
        for g in np.flatnonzero(self.diagnosis.pieces.any(axis=1)):
            pieces = np.flatnonzero(self.diagnosis.pieces[g])
            main = self.diagnosis.main[g]
            self.labels[:, pieces] = main if main != NONE else pieces[0]

    def merged(self) -> None:
        for g in self.rows("merged"):
            self.paint(g, self.diagnosis.covers[g])

    def identity(self) -> None:
        """Exchange labels so that every found segment has its owner's; ids in the way take the places set free."""
        p = len(self.frame.class_)
        moves = {}
        for g in self.rows("found"):
            owner = self.owner[g] if self.owner[g] != NONE else p + g
            moves[self.diagnosis.main[g]] = owner
        moves = {source: target for source, target in moves.items() if source != target}
        free = [label for label in moves if label not in set(moves.values())]
        blocked = [label for label in moves.values() if label not in moves]
        moves |= dict(zip(blocked, free, strict=True))
        classes = self.classes.copy()
        for source, target in moves.items():
            self.classes[target] = classes[source]
            if source < p:
                self.labels[:, source] = target

    def void(self) -> None:
        on_void = np.zeros(len(self.frame.class_), bool)
        on_void[0] = True
        for g in np.flatnonzero((self.diagnosis.main != NONE) | (self.diagnosis.cause == "void")):
            self.paint(g, on_void)

    def boundary(self) -> None:
        """Segments give back what they hold of others, and get what others hold of theirs; lost pixels become void."""
        diagnosis = self.diagnosis
        main = diagnosis.main
        for g in np.flatnonzero(main != NONE):
            p = main[g]
            strangers = (diagnosis.host != g) & (self.frame.class_ >= 0)
            self.labels[g, strangers] = p
            spilled = (main != NONE) | (diagnosis.cause == "")  # what is missed or merged is not mended here
            spilled[[0, g]] = False
            self.labels[spilled, p] = np.where(main[spilled] != NONE, main[spilled], 0)

    def extra(self) -> None:
        for p in np.flatnonzero(self.diagnosis.extra):
            self.labels[:, p] = np.where(self.diagnosis.main != NONE, self.diagnosis.main, 0)


def mend(counts: counting.VideoCounts, quirks: Quirks = OFFICIAL) -> dict[str, counting.VideoCounts]:
    """Cause -> the counts of the video as they would be without it."""
    frames = _frames(counts, quirks)
    diagnoses = [diagnose(frame) for frame in frames]
    owner = owners(frames, diagnoses) if frames else np.zeros(0, np.int64)
    truth_tables = counting.tables(counts.truth)
    mended = {}
    for cause in CAUSES:
        parts = [_mend_frame(*both, owner, counts.truth.ids, cause) for both in zip(frames, diagnoses, strict=True)]
        mended[cause] = counting.join_frames([pairs for pairs, _ in parts], truth_tables, [table for _, table in parts])
    return mended


def _mend_frame(
    frame: Frame, diagnosis: Diagnosis, owner: np.ndarray, truth_ids: np.ndarray, cause: str
) -> tuple[counting.FramePairs, counting.Segments]:
    mending = _Mending(frame, diagnosis, owner)
    getattr(mending, cause)()
    g, p = np.nonzero(frame.cells)
    labels = mending.labels[g, p]
    present = np.setdiff1d(labels, [0])
    table = counting.Segments(present, mending.classes[present], np.zeros(len(present), bool), areas=None)
    return counting.count_runs(frame.cells[g, p], truth_ids[g], labels), table


class ErrorAnatomy:
    """State: VPQ as it is and with each cause mended."""

    def __init__(self, classes: ClassTable | None = None, *, windows="leaderboard", quirks: Quirks = OFFICIAL):
        self.quirks = quirks
        self.states = {name: VideoPQ(classes, windows=windows, quirks=quirks) for name in ("", *CAUSES)}

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(settings.classes, windows=settings.windows, quirks=settings.quirks)

    def update(self, video: str, counts: counting.VideoCounts) -> None:
        """Score one video nine times; ValueError when it was scored before."""
        self.states[""].update(video, counts)
        for cause, mended in mend(counts, self.quirks).items():
            self.states[cause].update(video, mended)

    def merge(self, other: "ErrorAnatomy") -> None:
        """Take in the videos of another state."""
        for cause, state in self.states.items():
            state.merge(other.states[cause])

    def compute(self) -> dict:
        """`vpq` as it is and `costs`: cause -> points of VPQ that mending it alone wins, for all, things, stuff.

        A cost is None where no class is left to score, before or after.
        """
        scores = {cause: state.compute()["vpq"] for cause, state in self.states.items()}
        now = scores.pop("")
        costs = {
            cause: {part: None if None in (now[part], then[part]) else then[part] - now[part] for part in now}
            for cause, then in scores.items()
        }
        return {"vpq": now, "costs": costs}

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """None: a cost is no score."""
        return {}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """What each kind of error costs, dearest first."""
        dearest = sorted(numbers["costs"].items(), key=lambda item: -(item[1]["all"] or 0.0))
        lines = [(cause.replace("_", " "), cost["all"], cost["things"], cost["stuff"]) for cause, cost in dearest]
        title = "Error anatomy: points of VPQ won by mending one kind"
        return [Table(SCORES, title, ("error", "all", "things", "stuff"), lines)]
