"""Contact sheets, legends and pictures side by side."""

import numpy as np
import pytest

from vps_jax.datasets import class_table
from vps_jax.types import PanopticFrame
from vps_jax.viz import sheets
from vps_jax.viz.overlay import UNKNOWN, track_color

TABLE = class_table("vipseg")
SKY, PERSON = 28, 60


def frames(count, height=60, width=100):
    for i in range(count):
        categories = np.full((height, width), SKY, np.uint8)
        track_ids = np.zeros((height, width), np.int32)
        categories[10:30, 10:50], track_ids[10:30, 10:50] = PERSON, 1 + i
        categories[40:] = UNKNOWN
        yield PanopticFrame(f"{i:08d}", categories, track_ids)


def has_color(image, color):
    return (image == np.array(color)).all(-1).any()


def test_scaling_keeps_labels_whole():
    (frame,) = frames(1)
    image, labels = sheets.scale_frame(np.zeros((60, 100, 3), np.uint8), frame, width=150)
    assert image.shape == (90, 150, 3) and labels.categories.shape == (90, 150)
    assert set(np.unique(labels.categories)) == {SKY, PERSON, UNKNOWN}
    assert labels.track_ids[20, 30] == 1 and labels.stem == frame.stem


def test_side_by_side_keeps_the_pictures():
    a, b = np.full((40, 30, 3), 10, np.uint8), np.full((40, 50, 3), 90, np.uint8)
    out = sheets.side_by_side([a, b], ["image", "labels"])
    assert out.shape == (40 + sheets.LINE, 30 + sheets.GAP + 50, 3)
    assert (out[sheets.LINE :, :30] == 10).all() and (out[sheets.LINE :, 30 + sheets.GAP :] == 90).all()
    assert (out[: sheets.LINE, :30] < 128).any()  # a title


def test_the_legend_names_what_is_there_and_nothing_else():
    legend = sheets.draw_legend(list(frames(2)), TABLE, width=500)
    for color in (TABLE.colors[SKY], track_color(1), track_color(2)):
        assert has_color(legend, color)
    assert not has_color(legend, track_color(3)) and not has_color(legend, TABLE.colors[PERSON])
    assert legend.shape == (2 * sheets.LINE + sheets.GAP, 500, 3)  # three entries in two columns


@pytest.mark.parametrize(("count", "cells"), [(1, 1), (3, 3), (40, 4)])
def test_a_contact_sheet_shows_first_and_last(count, cells):
    images = (np.full((60, 100, 3), 50, np.uint8) for _ in range(count))
    sheet = sheets.contact_sheet(images, list(frames(count)), TABLE, columns=2, rows=2, cell_width=120, legend=False)
    cell_height = 72 + sheets.LINE
    assert sheet.shape == (-(-cells // 2) * cell_height, 240, 3)
    for i in range(-(-cells // 2) * 2):
        y, x = i // 2 * cell_height, i % 2 * 120
        blank = (sheet[y : y + cell_height, x : x + 120] == 255).all()
        assert blank == (i >= cells)
    person = (50 + np.array(track_color(count))) / 2  # the last frame's track
    y, x = (cells - 1) // 2 * cell_height + sheets.LINE, (cells - 1) % 2 * 120
    assert np.abs(sheet[y + 14, x + 14] - person).max() <= 2
