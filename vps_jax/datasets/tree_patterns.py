"""Files of a tree by a pattern such as `{split}/{video}_{frame}.png`."""

import pathlib
import re

FIELD = re.compile(r"\{(split|video|frame)\}")
Key = tuple[str, str]  # video, frame


def globbed(pattern: str, split: str = "*") -> str:
    """The pattern for `Path.glob`, of one split or of all."""
    return FIELD.sub(lambda field: split if field[1] == "split" else "*", pattern)


def files_of(root: pathlib.Path, pattern: str, split: str, suffixes: tuple[str, ...]) -> dict[Key, pathlib.Path]:
    """Files of a split by video and frame, as of `fitting`; of two files of one frame the last."""
    return dict(fitting(root, pattern, split, suffixes))


def fitting(root: pathlib.Path, pattern: str, split: str, suffixes: tuple[str, ...]) -> list[tuple[Key, pathlib.Path]]:
    """Video, frame and file of a split, frames in the order of their numbers; a video without a name is its frame.

    Args:
      root: the pattern is below it.
      pattern: where a field meets another in one name, the first takes as much as it can; `*` fits anything.
      split: its files only; of a pattern without `{split}` all files.
      suffixes: of the files, in small letters; a pattern that ends in a field fits all of them.
    """
    end = "" if re.search(r"\.\w+$", pattern) else r"\.[^./]+"
    parts = re.split(r"(\{split\}|\{video\}|\{frame\}|\*)", pattern)
    whole = re.compile("".join(expression(part, split, parts[:i]) for i, part in enumerate(parts)) + end)
    found: list[tuple[Key, pathlib.Path]] = []
    for path in root.glob(globbed(pattern, split) + (".*" if end else "")):
        place = path.relative_to(root)
        fit = whole.fullmatch(place.as_posix())
        if fit and path.suffix.lower() in suffixes and not any(part.startswith(".") for part in place.parts):
            fields = fit.groupdict()
            frame = fields.get("frame", path.stem)
            found.append(((fields.get("video", frame), frame), path))
    return sorted(found, key=lambda row: (row[0][0], numbers(row[0][1]), row[0][1], row[1]))


def doubled(found: list[tuple[Key, pathlib.Path]]) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Pairs of files that stand for the same video and frame."""
    pairs = zip(found, found[1:], strict=False)
    return [(path, other) for (key, path), (own, other) in pairs if key == own]


def above(pattern: str) -> str:
    """The folder or file of a pattern that tells a split: its parts up to the first with a video or frame."""
    parts = pathlib.PurePosixPath(pattern).parts
    return "/".join(parts[: next((i for i, p in enumerate(parts) if "{video}" in p or "{frame}" in p), len(parts))])


def expression(part: str, split: str, before: list[str]) -> str:
    """Regular expression of one part of a pattern."""
    field = FIELD.fullmatch(part)
    if field is None:
        return "[^/]*" if part == "*" else re.escape(part)
    if field[1] == "split":
        return re.escape(split)
    return f"(?P={field[1]})" if part in before else f"(?P<{field[1]}>[^/]+)"


def numbers(name: str) -> list[tuple[int, str]]:
    """Key of a name by which frame 10 follows frame 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def number_of(frame: str) -> int | None:
    """The last number in a frame's name."""
    digits = re.findall(r"\d+", frame)
    return int(digits[-1]) if digits else None
