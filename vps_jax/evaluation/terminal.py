"""The result of an evaluation as tables on the terminal."""

from rich.console import Console
from rich.table import Table


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _vpq_table(vpq: dict) -> Table:
    title = f"VPQ in percent, windows: {vpq['window_set']}"
    table = _table(title, "frames", "VPQ", "SQ", "RQ", "things", "stuff")
    for k, means in vpq["windows"].items():
        cells = [
            means["all"]["pq"],
            means["all"]["sq"],
            means["all"]["rq"],
            means["things"]["pq"],
            means["stuff"]["pq"],
        ]
        table.add_row(k, *map(_number, cells))
    means = vpq["vpq"]
    table.add_row(
        "mean", _number(means["all"]), "", "", _number(means["things"]), _number(means["stuff"]), style="bold"
    )
    return table


def _class_table(per_class: dict, key: str, label: str, count: int) -> Table:
    """The best and the worst classes of a metric."""
    ranked = sorted(per_class.values(), key=lambda row: -row[key])
    shown = ranked if len(ranked) <= 2 * count else [*ranked[:count], None, *ranked[-count:]]
    table = _table("Best and worst classes", "class", "kind", label)
    for row in shown:
        if row is None:
            table.add_row("...", "", "")
        else:
            kind = {True: "thing", False: "stuff"}.get(row.get("isthing"), "")
            table.add_row(row["name"], kind, _number(row[key]))
    return table


def _anatomy_table(anatomy: dict) -> Table:
    """What each kind of error costs, dearest first."""
    table = _table("Error anatomy: points of VPQ won by mending one kind", "error", "all", "things", "stuff")
    for cause, cost in sorted(anatomy["costs"].items(), key=lambda item: -(item[1]["all"] or 0.0)):
        table.add_row(cause.replace("_", " "), *(_number(cost[part]) for part in ("all", "things", "stuff")))
    return table


def _ap_table(ap: dict) -> Table:
    table = _table("Average precision and recall", "score", "percent")
    for name, value in ap.items():
        if name != "per_class":
            table.add_row(name.upper().replace("_", " "), _number(value))
    return table


def _other_scores(result: dict) -> Table | None:
    """One line per score beside VPQ."""
    names = {
        "stq": {"STQ": "stq", "AQ": "aq", "SQ": "sq"},
        "miou": {
            "mIoU": "miou",
            "pixel accuracy": "pixel_accuracy",
            "class accuracy": "class_accuracy",
            "frequency-weighted IoU": "frequency_weighted_iou",
        },
        "vc": {"mVC8": "mvc8", "mVC16": "mvc16"},
    }
    rows = [(name, result[m][key]) for m, keys in names.items() if m in result for name, key in keys.items()]
    if "pq" in result:
        rows += [(f"image PQ, {part}", result["pq"][part]["pq"]) for part in ("all", "things", "stuff")]
    if not rows:
        return None
    table = _table("Other scores", "score", "percent")
    for name, value in rows:
        table.add_row(name, _number(value))
    return table


def print_report(result: dict, *, console: Console | None = None, classes: int = 5) -> None:
    """Print a result of `runner.evaluate_folders`: VPQ per window, the best and worst classes, the other scores.

    Args:
      result: the dictionary.
      console: where to (default: standard output).
      classes: how many of the best and of the worst classes.
    """
    console = console or Console()
    console.print(
        f"{result['predictions']} against {result['truth']} ({result['layout']}, split {result['split']}): "
        f"{result['videos']} videos, {result['frames']} frames, in percent",
        highlight=False,
        soft_wrap=True,
    )
    if result["quirks_off"]:
        console.print(f"not as the official scripts: {', '.join(result['quirks_off'])}", style="yellow")
    if "vpq" in result:
        console.print(_vpq_table(result["vpq"]))
        console.print(_class_table(result["vpq"]["per_class"], "vpq", "VPQ", classes))
    elif "miou" in result:
        console.print(_class_table(result["miou"]["per_class"], "iou", "IoU", classes))
    if "anatomy" in result:
        console.print(_anatomy_table(result["anatomy"]))
    if "ap" in result:
        console.print(_ap_table(result["ap"]))
        console.print(_class_table(result["ap"]["per_class"], "ap", "AP", classes))
    other = _other_scores(result)
    if other:
        console.print(other)
