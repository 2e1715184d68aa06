"""Tables of a result as csv and as markdown."""

import csv
import io
from collections.abc import Iterable, Mapping

from vps_jax.evaluation.protocol import CLASSES, Table

LEADERBOARD_COLUMNS = ("vpq", "vpq1", "vpq2", "vpq4", "vpq6", "stq")
KEYS = {CLASSES: 3}  # leading cells that name a row: id, name and kind of a class; elsewhere one


def join(tables: Iterable[Table], kind: str) -> Table:
    """All tables of one kind side by side: a row per class or video, in the order in which they come up."""
    chosen = [table for table in tables if table.kind == kind]
    keys = KEYS.get(kind, 1)
    rows: dict[tuple, dict] = {}
    names: dict[str, None] = {}
    for table in chosen:
        names |= dict.fromkeys(table.columns[keys:])
        for row in table.rows:
            known = rows.setdefault(row[0], dict.fromkeys(table.columns[:keys], ""))
            # a metric that does not know whether a class is a thing leaves the cell empty
            known |= {name: cell for name, cell in zip(table.columns, row, strict=True) if cell != ""}
    head = chosen[0].columns[:keys] if chosen else ("video",)
    columns = (*head, *names)
    return Table(kind, "", columns, [tuple(row.get(name) for name in columns) for row in rows.values()])


def leaderboard_row(numbers: Mapping[str, float]) -> str | None:
    """The columns of the VIPSeg leaderboard as one line to paste, or None when the numbers are not all there.

    Args:
      numbers: headline numbers, in percent.
    """
    if not all(name in numbers for name in LEADERBOARD_COLUMNS):
        return None
    return " | ".join(f"{numbers[name]:.4f}" for name in LEADERBOARD_COLUMNS)


def as_csv(table: Table) -> str:
    """Rows of numbers as they are; empty where nothing is defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.columns, *table.rows])
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """The same to paste, with two digits."""
    lines = [table.columns, ["---"] * len(table.columns), *([_cell(cell) for cell in row] for row in table.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell).replace("|", "\\|")
