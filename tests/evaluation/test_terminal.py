"""What an evaluation prints."""

import io

import numpy as np
import pytest
from label_scenes import CLASSES, video, write_vipseg
from rich.console import Console

from vps_jax.evaluation.runner import evaluate_folders, print_report


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    classes = CLASSES._replace(names=("[bold]", "[/x]", "c", "d"))
    scene = video([[[1, 1, 2]]], {1: 0, 2: 1})
    write_vipseg(tmp_path / "[t]", tmp_path / "[r]", {"[v]": (scene, scene)}, classes=classes)
    text = io.StringIO()
    result = evaluate_folders(tmp_path / "[t]", tmp_path / "[r]", metrics="vpq", windows=(1,))
    print_report(result, console=Console(file=text, width=200))
    assert all(name in text.getvalue() for name in ("[bold]", "[/x]", "[t]", "[r]"))


@pytest.mark.parametrize(
    ("classes", "shown"),
    [
        (2, ["class6", "class7", "class0", "class1"]),
        (3, [f"class{c}" for c in (6, 7, 4, 5, 2, 3, 0, 1)]),  # a gap would hide hardly more than it needs
    ],
)
def test_report_of_many_classes_shows_the_best_and_the_worst(tmp_path, classes, shown):
    names = tuple(f"class{c}" for c in range(8))
    table = CLASSES._replace(names=names, colors=((0, 0, 0),) * 8, is_thing=(True,) * 8)
    pixels = np.arange(8)[None].repeat(8, axis=0) + 1
    cut = np.where(np.arange(8)[:, None] < np.arange(8) // 2 + 5, pixels, 0)  # class c is hit in 5 + c // 2 rows of 8
    kinds = {c + 1: c for c in range(8)}
    write_vipseg(tmp_path / "t", tmp_path / "r", {"v": (video([pixels], kinds), video([cut], kinds))}, classes=table)
    text = io.StringIO()
    result = evaluate_folders(tmp_path / "t", tmp_path / "r", metrics="vpq", windows=(1,))
    print_report(result, console=Console(file=text, width=100), classes=classes)
    rows = [line.split("│")[1].strip() for line in text.getvalue().splitlines() if "thing" in line and "│" in line]
    assert rows == shown
