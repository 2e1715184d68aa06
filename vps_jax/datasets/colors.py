"""Segments of one video as RGB colours, after the rules of the panoptic file format."""

from collections.abc import Hashable, Sequence

import numpy as np

from vps_jax.datasets.classes import ClassTable

SPREAD = 30  # later objects of a class take a colour this near to the class colour, per channel
PATIENCE = 1000  # draws after which the spread grows by one


class SegmentColors:
    """A stuff class has its colour in every frame. The first object of a thing class gets the class colour if no other
    segment has it, later ones a free colour near it; black is void and never drawn.
    """

    def __init__(self, classes: ClassTable, random: np.random.Generator | None = None):
        """Free colours come from `random`, or from a generator seeded by the class, the same on every machine."""
        self._base, self._random = classes.colors, random
        self._taken = {(0, 0, 0)} | {tuple(classes.colors[c]) for c in classes.stuff_ids}
        self._objects: dict[Hashable, tuple[int, int, int]] = {}

    def stuff(self, category: int) -> tuple[int, int, int]:
        """Colour of a stuff class."""
        return self._base[category]

    def thing(self, identity: Hashable, category: int) -> tuple[int, int, int]:
        """Colour of an object, the same one at every call."""
        if identity not in self._objects:
            color = self._objects[identity] = self._free_color(category)
            self._taken.add(color)
        return self._objects[identity]

    def _free_color(self, category: int) -> tuple[int, int, int]:
        base, color, tries = self._base[category], self._base[category], 0
        random = self._random or np.random.default_rng((category, len(self._taken)))
        while color in self._taken:
            spread = SPREAD + tries // PATIENCE  # a crowded class may go further away
            color = tuple(np.clip(base + random.integers(-spread, spread + 1, 3), 0, 255).tolist())
            tries += 1
        return color


def color_id(color: Sequence[int]) -> int:
    """R + 256 G + 65536 B."""
    return int(color[0]) + 256 * int(color[1]) + 65536 * int(color[2])
