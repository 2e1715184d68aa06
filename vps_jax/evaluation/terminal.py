"""The result of an evaluation as tables on the terminal; every metric says which."""

from collections.abc import Sequence

from rich import table as rich_table
from rich.console import Console
from rich.markup import escape

from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation.compare import Comparison, as_tables
from vps_jax.evaluation.protocol import CLASSES, OTHER_SCORES, SCORES, Table
from vps_jax.evaluation.tables import LEADERBOARD_COLUMNS, leaderboard_row


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else escape(str(value))


def draw(title: str, columns: Sequence[str], rows: Sequence[Sequence | None]) -> rich_table.Table:
    """A table whose numbers have two digits; a row of None is a gap, and a last row that begins with `mean` is bold."""
    drawn = rich_table.Table(title=escape(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        drawn.add_column(escape(column), justify="left" if i == 0 else "right")
    for row in rows:
        cells = ("...", *[""] * (len(columns) - 1)) if row is None else tuple(map(_cell, row))
        drawn.add_row(*cells, style="bold" if cells[0] == "mean" else None)
    return drawn


def _class_table(table: Table, count: int | None) -> rich_table.Table:
    """The best and the worst classes of a metric by its first number, or all if there are hardly more."""
    label = table.columns[3]
    ranked = sorted((row[1:4] for row in table.rows), key=lambda row: -(row[2] or 0.0))
    if count is None or len(ranked) <= 3 * count:
        return draw("Classes", ("class", "kind", label), ranked)
    return draw("Best and worst classes", ("class", "kind", label), [*ranked[:count], None, *ranked[-count:]])


def print_report(result: dict, *, console: Console | None = None, classes: int | None = 5) -> None:
    """Print a result of `runner.evaluate_folders`: each metric's scores, the best and the worst classes of the first.

    Args:
      result: the dictionary.
      console: where to (default: standard output).
      classes: how many of the best and of the worst classes; None: all.
    """
    console = console or Console()
    console.print(
        f"{result['predictions']} against {result['truth']} ({result['layout']}, split {result['split']}): "
        f"{result['videos']} videos, {result['frames']} frames, in percent",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for line in result.get("notes", ()):
        console.print(f"note: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if result.get("quirks_on"):
        console.print(f"as the official scripts also: {', '.join(result['quirks_on'])}", style="yellow")
    if result["quirks_off"]:
        console.print(f"not as the official scripts: {', '.join(result['quirks_off'])}", style="yellow")
    all_tables = metric_table.tables(result)
    by_class = next((table for table in all_tables if table.kind == CLASSES), None)
    others = [row for table in all_tables if table.title == OTHER_SCORES for row in table.rows]
    for table in all_tables:
        if table.kind == SCORES and table.title != OTHER_SCORES:
            console.print(draw(table.title, table.columns, table.rows))
        if table is by_class:
            console.print(_class_table(table, classes))
    if others:
        console.print(draw(OTHER_SCORES, ("score", "percent"), others))
    if row := leaderboard_row(metric_table.headline(result)):
        console.print(f"leaderboard row ({', '.join(name.upper() for name in LEADERBOARD_COLUMNS)}):\n{row}",
                      highlight=False, soft_wrap=True)  # fmt: skip


def print_comparison(comparison: Comparison, *, console: Console | None = None, rows: int = 5) -> None:
    """Print a comparison: scores, then the classes and videos with the greatest gains and losses, so many of each."""
    console = console or Console()
    for table in as_tables(comparison):
        lines = table.rows
        if table.kind != SCORES and len(lines) > 2 * rows:
            lines = [*lines[:rows], None, *lines[len(lines) - rows :]]
        console.print(draw(table.title, table.columns, lines))
