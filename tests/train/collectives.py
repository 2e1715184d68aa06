"""What devices exchange in a compiled program."""

import collections
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


def collectives(text: str) -> collections.Counter[str]:
    """How often each kind stands in the text of a compiled program; a loop's body counts once."""
    return collections.Counter(re.findall(rf" ({'|'.join(KINDS)})(?:-start)?\(", text))
