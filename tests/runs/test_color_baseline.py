"""The colour baseline on pictures whose answer is plain."""

import numpy as np

from vps_jax.runs import color_baseline


def test_regions_of_a_thing_colour_are_tracks_through_time():
    # grey wall (0), two green people (60) that do not touch; the left one moves by a pixel
    images = np.full((2, 3, 7, 3), 100, np.uint8)
    images[0, 1, 1:3] = images[1, 1, 2:4] = (0, 250, 0)
    images[:, 1, 5] = (0, 240, 10)
    frames = list(color_baseline.label_by_color(images, {0: np.array([90, 90, 90]), 60: np.array([0, 255, 0])}, [60]))
    assert frames[0][0][1].tolist() == [0, 60, 60, 0, 0, 60, 0]
    assert frames[0][1][1].tolist() == [0, 1, 1, 0, 0, 2, 0]
    assert frames[1][1][1].tolist() == [0, 0, 1, 1, 0, 2, 0]
