"""Training batches of a user's own data: the same from every form of labels, and long videos more often."""

import collections
import itertools

import numpy as np
import own_scenes
import pytest

from vps_jax.config import Data, Source
from vps_jax.data import mixture, own_prepare, pipeline, samples
from vps_jax.data.records import Records, Video
from vps_jax.data.validation import validated
from vps_jax.datasets.labels import panoptic_code

MOST = 6  # rows of the instance table
BATCHES = 3


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Form -> its first batches."""
    drawn = list(own_scenes.drawn({"train": 4}, size=(48, 64), frames=5))
    found = {}
    for write in (own_scenes.as_index, own_scenes.as_palette, own_scenes.as_panoptic_video, own_scenes.as_ytvis):
        root = tmp_path_factory.mktemp(write.__name__)
        own_scenes.write_frames(root / "source", drawn)
        own_prepare.prepare(write(root / "source", drawn), root / "source", root / "out", progress=False)
        source = Source(path=str(root / "out" / "records"), short_side=48, max_side=64, draw_by="frames", group="OWN")
        data = Data(sources={"own": source}, batch_size=3, clip_frames=2, max_instances=MOST, num_workers=0)
        found[write.__name__] = list(itertools.islice(pipeline.train_batches(data), BATCHES))
    return found


@pytest.mark.parametrize("form", ["as_palette", "as_panoptic_video"])
def test_forms_that_say_everything_give_the_same_bits(batches, form):
    for wanted, found in zip(batches["as_index"], batches[form], strict=True):
        assert found.records == wanted.records
        for name in ("images", "ids", "instance_classes"):
            np.testing.assert_array_equal(getattr(found.clip, name), getattr(wanted.clip, name))
        shown = np.unique(wanted.clip.ids)
        assert shown.max() > MOST and ((shown > 0) & (shown <= MOST)).any()  # stuff and things


def test_a_form_without_stuff_gives_the_same_images_and_things(batches):
    for wanted, found in zip(batches["as_index"], batches["as_ytvis"], strict=True):
        assert found.records == wanted.records
        np.testing.assert_array_equal(found.clip.images, wanted.clip.images)
        np.testing.assert_array_equal(found.clip.instance_classes, wanted.clip.instance_classes)
        np.testing.assert_array_equal(found.clip.ids, np.where(wanted.clip.ids <= MOST, wanted.clip.ids, 0))


def drawn_share(draw_by: str) -> dict[int, float]:
    """How often each of four videos of 1, 2, 5 and 12 frames comes in two epochs of its bucket."""
    videos = tuple(Video(str(n), tuple(map(str, range(n))), (64, 64), 0, (1,) * n) for n in (1, 2, 5, 12))
    source = Source(path="", short_side=64, draw_by=draw_by)
    data = validated(Data(sources={"own": source}, batch_size=1))
    opened = {"own": Records(None, videos, panoptic_code(), "", "train")}
    (bucket,) = samples.make_buckets(data, opened)
    steps = 2 * len(bucket.videos)
    counts = collections.Counter(mixture.video_of(bucket, 0, k, seed=3) for k in range(steps))
    return {len(videos[i].stems): count / steps for i, count in counts.items()}


def test_videos_are_drawn_by_their_number_of_frames_where_it_is_asked_for():
    assert drawn_share("frames") == {n: n / 20 for n in (1, 2, 5, 12)}
    assert drawn_share("videos") == dict.fromkeys((1, 2, 5, 12), 1 / 4)
