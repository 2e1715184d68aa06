"""What may be asked of a checkpoint, and what is refused in one line before its weights are read."""

import dataclasses
import pathlib

import pytest

from vps_jax.config import experiment
from vps_jax.datasets.classes import class_table
from vps_jax.runs import config_files
from vps_jax.runs.inference_request import Request, augmented, classes_asked, infer_asked
from vps_jax.types import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
GROUPS = (("VIPSEG", 124), ("VIPSEG_VIS", 58), ("OVIS", 25), ("YOUTUBE_VIS", 40))
TARVIS = experiment({"model": {"name": "tarvis", "semantic_groups": GROUPS}, "infer": {"short_side_px": 720}})
IMAGE = experiment({"model": {"name": "mask2former"}})
VIDEOMT = experiment({"model": {"name": "videomt"}})
OWN = class_table("vipseg")


def test_a_short_side_of_settings_that_keep_the_size():
    asked = infer_asked(TARVIS, Request(settings="kitti_step", short_side=288))
    assert infer_asked(TARVIS, Request(settings="kitti_step")).short_side_px is None
    assert (asked.short_side_px, asked.max_side_px, asked.clip_frames, asked.overlap_frames) == (288, 666, 6, 3)


def test_what_is_not_asked_for_is_as_the_checkpoint_says():
    assert infer_asked(TARVIS, Request()) == TARVIS.infer and classes_asked(TARVIS, OWN, Request()) == OWN
    asked = infer_asked(TARVIS, Request(task="semantic", short_side=360))
    assert (asked.task, asked.short_side_px, asked.max_side_px) == ("semantic", 360, 666)  # 1333 / 2


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("ovis", "OVIS", ("instance", 576, 12, 6, 0.0, 10, 20)),
        ("youtube_vis_2021", "YOUTUBE_VIS", ("instance", 448, 12, 6, 0.0, 10, 10)),
        ("vipseg", "VIPSEG", ("panoptic", 576, 12, 6, 0.5, 1000, 10)),
    ],
)
def test_published_settings_of_a_data_set(name, group, expected):
    request = Request(settings=name)
    s = infer_asked(TARVIS, request)
    found = (s.task, s.short_side_px, s.clip_frames, s.overlap_frames, s.score_threshold, s.max_tracks_per_clip)
    assert (*found, s.max_instances) == expected
    assert s.semantic_group == group and classes_asked(TARVIS, OWN, request) == class_table(name)


def test_test_time_augmentation():
    asked = infer_asked(TARVIS, Request(tta=("flip", "1.25", 0.75)))
    assert (asked.flip, asked.scales) == (True, (1.0, 1.25, 0.75))
    assert infer_asked(IMAGE, Request(tta=("0.5",))).scales == (1.0, 0.5)
    assert infer_asked(VIDEOMT, Request(tta=("flip",))).flip


def test_views_that_the_settings_do_not_have_are_named():
    plain = dataclasses.make_dataclass("Plain", [("task", str, "semantic"), ("flip", bool, False)], frozen=True)()
    assert augmented(plain, ("flip",)).flip
    with pytest.raises(UserError, match="tta='flip,0.5': the settings of this model have no scales"):
        augmented(plain, ("flip", 0.5))


def test_settings_of_a_data_set_without_a_group_keep_the_classes():
    request = Request(settings="cityscapes_vps")
    assert infer_asked(TARVIS, request).clip_frames == 10 and classes_asked(TARVIS, OWN, request) == OWN


def test_an_image_model_labels_every_pixel():
    assert infer_asked(IMAGE, Request(task="semantic")) == IMAGE.infer


def test_a_task_is_done_with_the_group_that_has_learned_it():
    """VIPSeg as three tasks, as stage 3 sees it; instances are of its 58 things, with their own ids."""
    stage3 = experiment(config_files.load(ROOT / "configs" / "stage3.py:swin_tiny"))
    for own in (Request(), Request(task="panoptic")):
        assert infer_asked(stage3, own) == stage3.infer and classes_asked(stage3, OWN, own) == OWN
    asked = Request(task="instance")
    assert infer_asked(stage3, asked).semantic_group == "VIPSEG_VIS"
    classes = classes_asked(stage3, OWN, asked)
    things = [number for number, thing in enumerate(OWN.is_thing) if thing]
    assert classes.official_ids == tuple(things) and len(things) == 58 and all(classes.is_thing)
    assert classes.names == tuple(OWN.names[number] for number in things)
    assert infer_asked(stage3, Request(task="semantic")).semantic_group == "VIPSEG_VSS"
    assert classes_asked(stage3, OWN, Request(task="semantic")) == OWN


def test_a_task_of_several_groups_keeps_the_group():
    stage2 = experiment(config_files.load(ROOT / "configs" / "stage2.py:swin_tiny"))
    assert infer_asked(stage2, Request(task="instance")).semantic_group == stage2.infer.semantic_group


@pytest.mark.parametrize(
    ("found", "request_", "line"),
    [
        (IMAGE, Request(task="instance"), "task='instance': a mask2former model does semantic; choose"),
        (TARVIS, Request(task="depth"), "task='depth': a tarvis model does panoptic, semantic, instance"),
        (IMAGE, Request(settings="ovis"), "settings='ovis': the settings of OVIS are for another kind of model; leave"),
        (TARVIS, Request(settings="coco_panoptic"), "settings='coco_panoptic': .* are not published"),
        (TARVIS, Request(settings="nuscenes"), "nuscenes"),
        (TARVIS, Request(tta=("flop",)), "tta='flop': expected flip and factors from 0.1 to 10 on the size"),
        (TARVIS, Request(tta=("flip", 20)), "tta='flip,20': expected flip and factors"),
    ],
)
def test_what_a_model_cannot_do_is_named(found, request_, line):
    with pytest.raises(UserError, match=line):
        infer_asked(found, request_)
