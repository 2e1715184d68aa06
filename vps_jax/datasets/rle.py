"""Run-length encoded masks as COCO and YouTube-VIS json files hold them.

A mask is read column by column; `runs` are the lengths of its stretches of 0 and 1 in turn, beginning with 0. In json
they are a list, or a text of 6-bit groups (5 bits of value and one that says whether the number goes on) in which every
number after the third is the difference to the one two places before.
"""

import numpy as np

LONGEST = 1 << 32  # pixels of a run


def parse_counts(counts: list[int] | str | bytes) -> np.ndarray:
    """Runs int64 `[n]` of a json value.

    Raises:
      ValueError: a text that is no such code, or a run of negative length or longer than any image.
    """
    if isinstance(counts, (str, bytes)):
        runs = _parse_text(counts.encode() if isinstance(counts, str) else counts)
    else:
        if not isinstance(counts, list) or any(type(run) is not int for run in counts):
            raise ValueError("runs that are no whole numbers")
        if any(run > LONGEST for run in counts):
            raise ValueError(f"a run longer than {LONGEST}")
        runs = np.array(counts, np.int64)
    if (runs < 0).any():
        raise ValueError("a run of negative length")
    if (runs > LONGEST).any():
        raise ValueError(f"a run longer than {LONGEST}")
    return runs


def _parse_text(text: bytes) -> np.ndarray:
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise ValueError("a text that is no run-length code")
    last = (codes & 32) == 0  # of each number's groups, the one that ends it
    number = np.cumsum(last) - last  # which number a group belongs to
    starts = np.flatnonzero(np.append(True, last[:-1]))
    place = np.arange(len(codes)) - starts[number]  # of the group in its number, low bits first
    if place.max() > 6:  # 35 bits
        raise ValueError("a text that is no run-length code")
    values = np.bincount(number, weights=(codes & 31) << 5 * place).astype(np.int64)
    negative = (codes[last] & 16) > 0
    values -= negative * (1 << 5 * (place[last] + 1))
    values[1::2] = np.cumsum(values[1::2])  # 1, 3, 5, ... each adds to the one two before
    values[2::2] = np.cumsum(values[2::2])
    return values


def to_text(runs: np.ndarray) -> str:
    """The text of runs, as `parse_counts` reads it."""
    values = np.array(runs, np.int64)
    values[3:] -= np.asarray(runs, np.int64)[1:-2]
    letters = []
    for value in values.tolist():
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            letters.append(chr(48 + (group | 32 if more else group)))
    return "".join(letters)


def of_mask(mask: np.ndarray) -> np.ndarray:
    """Runs int64 `[n]` of a mask `[h, w]`."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges)
    return np.append(0, runs) if flat.size and flat[0] else runs


def to_mask(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask bool `[h, w]`.

    Raises:
      ValueError: the runs do not fill the mask.
    """
    if runs.sum() != height * width:
        raise ValueError(f"runs of {runs.sum()} pixels for a mask of {height}x{width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width, order="F")


def area(runs: np.ndarray) -> int:
    """Pixels that are 1."""
    return int(runs[1::2].sum())


def intersection(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels that are 1 in both masks, of one size.

    The number of ones of `other` before a position is linear between the ends of its runs, so it can be read off at
    the ends of the runs of `one`, and no mask is made.
    """
    ends, other_ends = np.cumsum(one), np.cumsum(other)
    before = np.cumsum(np.where(np.arange(len(other)) % 2 == 1, other, 0))
    at = np.interp(ends, np.append(0, other_ends), np.append(0, before))  # whole numbers, exact in float64
    return round(float(at[1::2].sum() - at[0::2][: len(at[1::2])].sum()))
