"""Pictures of a result: bars of the classes' VPQ, bars of what each kind of error costs, the confusion matrix."""

import importlib.util
import io
from collections.abc import Mapping

import numpy as np

from vps_jax.types import UserError

THING, STUFF = "#3b6fb6", "#7f9a3f"
MOST_NAMES = 60  # of the confusion matrix, with more there is no room for names
DPI = 120


def draw(result: Mapping) -> dict[str, bytes]:
    """Name -> PNG file of every picture that the metrics of a result allow.

    Raises:
      UserError: matplotlib is not installed.
    """
    check_installed()
    from matplotlib.figure import Figure

    painters = {"vpq": ("vpq_of_classes", classes), "anatomy": ("anatomy", anatomy), "miou": ("confusion", confusion)}
    pictures = {}
    for metric, (name, paint) in painters.items():
        if metric in result:
            figure = Figure(layout="constrained")
            paint(figure, result[metric])
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
            pictures[name] = file.getvalue()
    return pictures


def check_installed() -> None:
    """Raises UserError when matplotlib is not there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("pictures need matplotlib; install vps-jax with its extra: pip install 'vps-jax[plots]'")


def classes(figure, vpq: Mapping) -> None:
    """One bar per class, best first; things and stuff in two colours, the mean as a line."""
    from matplotlib.patches import Patch

    rows = sorted(vpq["per_class"].values(), key=lambda row: row["vpq"] if row["vpq"] is not None else -1)
    figure.set_size_inches(7, 1.2 + 0.19 * len(rows))
    axes = figure.add_subplot()
    values = [row["vpq"] or 0.0 for row in rows]
    axes.barh([row["name"] for row in rows], values, color=[THING if row["isthing"] else STUFF for row in rows])
    for y, value in enumerate(values):
        inside = value > 12
        place, color, side = (value - 0.8, "white", "right") if inside else (value + 0.8, "black", "left")
        axes.text(place, y, f"{value:.1f}", va="center", ha=side, fontsize=7, color=color)
    handles = [Patch(color=THING, label="things"), Patch(color=STUFF, label="stuff")]
    if (mean := vpq["vpq"]["all"]) is not None:
        handles.append(axes.axvline(mean, color="black", linewidth=0.9, linestyle="--", label=f"mean {mean:.2f}"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    axes.set(xlim=(0, 100), ylim=(-0.6, len(rows) - 0.4), xlabel=f"VPQ in percent, windows: {vpq['window_set']}")
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.spines[["top", "right"]].set_visible(False)


def anatomy(figure, numbers: Mapping) -> None:
    """Points of VPQ that mending each kind of error wins, for all classes, things and stuff."""
    causes = sorted(numbers["costs"], key=lambda cause: numbers["costs"][cause]["all"] or 0.0)
    figure.set_size_inches(7, 1.2 + 0.5 * len(causes))
    axes = figure.add_subplot()
    for i, (part, color) in enumerate((("stuff", STUFF), ("things", THING), ("all", "#444444"))):
        values = [numbers["costs"][cause][part] or 0.0 for cause in causes]
        axes.barh(np.arange(len(causes)) + 0.26 * (i - 1), values, height=0.24, color=color, label=part)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(causes)), [cause.replace("_", " ") for cause in causes])
    axes.set_xlabel("points of VPQ won by mending one kind of error")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def confusion(figure, miou: Mapping) -> None:
    """Where the pixels of each true class go, each row adding up to 1; classes in the order of their ids."""
    names, pixels = miou["confusion"]["classes"], miou["confusion"]["pixels"]
    shown = sorted({int(c) for row in pixels.values() for c in row} | {int(c) for c in pixels})
    place = {c: i for i, c in enumerate(shown)}
    matrix = np.zeros((len(shown), len(shown)))
    for t, row in pixels.items():
        for p, count in row.items():
            matrix[place[int(t)], place[int(p)]] = count
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 3 + 0.16 * len(shown)
    figure.set_size_inches(side + 1, side)
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="truth")
    if len(shown) <= MOST_NAMES:
        axes.set_xticks(range(len(shown)), [names[c] for c in shown], rotation=90, fontsize=7)
        axes.set_yticks(range(len(shown)), [names[c] for c in shown], fontsize=7)
    figure.colorbar(picture, ax=axes, label="share of the true class' pixels", shrink=0.8)
