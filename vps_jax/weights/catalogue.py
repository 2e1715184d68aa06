"""The table of published checkpoints, `table.json`: what each is, where it lies, and the page `docs/weights.md` of it.

What no source states is null there and is told as unknown: an address is never guessed.
"""

import dataclasses
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vps_jax.types import UserError

USES = {"predict": "Models that predict", "start": "Weights to start a training from"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One published checkpoint; None is unknown.

    Attributes:
      name: what the commands call it.
      model: what it is, in words.
      config: experiment of `configs/` that it is converted with.
      changes: keys of that experiment that the file needs otherwise.
      use: `predict` for a whole model whose classes are known, `start` for what a training starts from.
      data: that it was trained on.
      numbers: published score -> percent.
      on: the split of these numbers.
      source: of these numbers.
      file: name of the published file; a `.zip` holds one `.pth`.
      page: where its authors describe it.
      address: of the file itself.
      size: of the file, in bytes.
      sha256: of the file, in hexadecimal.
      licence: in words.
    """

    name: str
    model: str
    config: str
    changes: Mapping[str, Any]
    use: str
    data: str | None
    numbers: Mapping[str, float]
    on: str | None
    source: str | None
    file: str | None
    page: str | None
    address: str | None
    size: int | None
    sha256: str | None
    licence: str | None

    @property
    def scores(self) -> str:
        """The published numbers in words; empty if none is known."""
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in self.numbers.items())
        return f"{numbers} on {self.on}" if numbers else ""


def entries() -> tuple[Entry, ...]:
    """All rows of the table, in its order."""
    text = (importlib.resources.files("vps_jax.weights") / "table.json").read_text()
    return tuple(Entry(**row) for row in json.loads(text))


def find(name: str) -> Entry:
    """The entry of a name.

    Raises:
      UserError: there is none.
    """
    table = {entry.name: entry for entry in entries()}
    if name not in table:
        raise UserError(f"there are no published weights {name!r}; expected one of {', '.join(table)}")
    return table[name]


def page(table: Sequence[Entry]) -> str:
    """The text of `docs/weights.md`."""
    parts = [HEAD]
    for use, title in USES.items():
        parts += [f"## {title}\n", *(_section(entry) for entry in table if entry.use == use)]
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    """One entry of the page: what is known, row by row, and in the last row what is not."""
    facts = {
        "model": entry.model,
        "experiment": f"`{entry.config}`",
        "trained on": entry.data,
        "published numbers": entry.scores and f"{entry.scores} ({entry.source})",
        "file": entry.file and f"`{entry.file}`",
        "described at": entry.page,
        "address": entry.address and f"<{entry.address}>",
        "size": entry.size and f"{entry.size:,} bytes",
        "sha256": entry.sha256 and f"`{entry.sha256}`",
        "licence": entry.licence,
    }
    known = [f"| {name} | {fact} |" for name, fact in facts.items() if fact]
    unknown = [f"| unknown | {', '.join(names)} |"] if (names := [n for n, fact in facts.items() if not fact]) else []
    return "\n".join([f"### `{entry.name}`\n", "| | |", "|---|---|", *known, *unknown, ""])


HEAD = """# Published weights

This page lists checkpoints of other authors that `vps-jax` can convert, and how to get them by name. **None of these
files has been downloaded or opened for this page.** A fact that is listed as unknown is stated by no source that was
read for it.

```
vps-jax weights list
vps-jax weights get videomt_large_vipseg                       # download, check, convert
vps-jax predict clip.mp4 --weights videomt_large_vipseg --output results
```
`get` prints the licence, downloads the file, compares its size and sha256 with those below, and converts it to a
checkpoint. If the expected sha256 is unknown, it prints the one that it found. `predict --weights NAME` does the same
and then predicts. A checkpoint that is in the cache already needs no network. No server is contacted unless you name a
checkpoint.

- **Place.** Files are kept in `$XDG_CACHE_HOME/vps_jax/weights/files/NAME`, or below `~/.cache` if that variable is not
  set. The checkpoint is in `checkpoints/NAME` beside `files`, or in the folder that `--output` names. You may delete
  `files` once the checkpoint is there.
- **By hand.** If the machine has no network, or if no address is known, put the file into that folder by hand; the
  error of `get` says its path.
- **Interruption.** If a download breaks off, run the command again; it continues where it ended.
- **Hugging Face Hub.** Files on this hub are fetched by `huggingface_hub` if it is installed
  (`pip install 'vps-jax[weights]'`), with its tokens and mirrors, and otherwise like any other file.

In the tables below, `experiment` is the config with which a file is converted. The page is written by
`python -m vps_jax.weights > docs/weights.md` from `vps_jax/weights/table.json`; change the table, not the page.
"""
