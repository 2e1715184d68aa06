"""What a config says of members, and what does not fit together, named before anything runs."""

import dataclasses

import numpy as np
import pytest

from configs import ensemble, ensemble_videomt
from vps_jax.config import ClipInference, MemberConfig, QueryInference
from vps_jax.datasets.classes import class_table
from vps_jax.ensemble import kept_scores
from vps_jax.ensemble.averaging import Ensemble
from vps_jax.ensemble.members import Checkpoint, EnsembleConfig, check_kept, kept_folder, member_settings, read_members
from vps_jax.infer.clip_model import geometry
from vps_jax.media.video import Video
from vps_jax.parsing import parse
from vps_jax.runs.published import config_of
from vps_jax.types import Geometry, UserError
from vps_jax.weights import catalogue

VIPSEG = class_table("vipseg")

TARVIS = {
    "name": "tarvis", "backbone": "swin_micro",
    "semantic_groups": (("VIPSEG", 124), ("VIPSEG_VIS", 58), ("VIPSEG_VSS", 124)),
    "instance_queries": 4, "hidden_dim": 32, "num_heads": 4, "neck_layers": 1, "neck_ffn_dim": 32, "decoder_layers": 3,
    "decoder_ffn_dim": 32, "vos": False, "drop_path_rate": 0.0, "remat": False, "dtype": "float32",
}  # fmt: skip
IMAGE = {"name": "mask2former", "size": "beit_tiny_96", "semantic_groups": (("VSPW", 124),)}
INFER = {"clip_frames": 4, "overlap_frames": 2, "short_side_px": 64, "max_side_px": 200}
WINDOWS = {"task": "mask_classification", "window_px": 96, "stride_px": 64}
THINGS_FIRST = VIPSEG._replace(names=tuple(VIPSEG.names[i] for i in (*VIPSEG.thing_ids, *VIPSEG.stuff_ids)))
CONFIGS = {
    "tarvis": {"model": TARVIS, "infer": INFER},
    "image": {"model": IMAGE, "infer": WINDOWS},
    "window": {"model": IMAGE, "infer": {**WINDOWS, "window_px": 64}},
    "few": {"model": {**TARVIS, "semantic_groups": (("VIPSEG", 19),)}, "infer": INFER},
    "things_first": {"model": TARVIS, "infer": INFER, "classes": THINGS_FIRST},
}


def open_checkpoint(path, weights):
    row = {"classes": VIPSEG, **CONFIGS[path]}
    return Checkpoint(**row, identity=f"{path}@{weights}", load=lambda: pytest.fail("loaded"))


def read(things=None, **rows):
    return read_members({"members": rows, "things": things}, open_checkpoint)


VPS = {"checkpoint": "tarvis"}


def test_members_as_a_config_describes_them():
    found, things = read(
        vss={
            "checkpoint": "tarvis",
            "weights": "raw",
            "task": "semantic",
            "group": "VIPSEG_VSS",
            "weight": 2,
            "flip": True,
            "scales": (1.0, 0.5),
        },
        vps=VPS,
        image={"checkpoint": "image", "scale": "log_scores"},
    )
    image, vps, vss = found
    assert [m.name for m in found] == ["image", "vps", "vss"] and things is vps
    assert (vss.identity, vss.weight, vss.scale, vss.kind) == ("tarvis@raw", 2.0, "logits", "logits")
    views = {"flip": True, "scales": (1.0, 0.5)}
    assert vss.infer == ClipInference(**INFER, task="semantic", semantic_group="VIPSEG_VSS", **views)
    assert image.infer.window_px == 96 and image.kind == "probabilities" and image.scale == "log_scores"
    assert vps.run_key != vss.run_key  # other weights
    same, _ = read(vps=VPS, vss={"checkpoint": "tarvis", "task": "semantic", "group": "VIPSEG_VSS"})
    assert same[0].run_key == same[1].run_key


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": VPS, "b": VPS}, "things=None: expected one panoptic member .*a, b"),
        ({"a": {**VPS, "task": "semantic"}}, "expected one panoptic member .*none"),
        ({"a": VPS, "b": {"checkpoint": "few", "task": "semantic"}}, "members.b: .*19 classes; expected the 124"),
        ({"a": VPS, "b": {**VPS, "task": "semantic", "group": "VIPSEG_VIS"}}, "members.b: .*58 classes"),
        ({"a": VPS, "b": {**VPS, "task": "semantic", "group": "COCO"}}, "members.b: semantic_group='COCO'"),
        ({"a": VPS, "b": {"checkpoint": "window"}}, "members.b: window_px=64; expected 96"),
        ({"a": {**VPS, "scale": "log_scores"}}, "members.a.scale='log_scores'"),
        ({"a": {**VPS, "scale": "probabilities"}}, "members.a.scale='probabilities': expected one of"),
        ({"a": {**VPS, "weight": -1}}, "members.a.weight=-1.0|no weight is above 0"),
        ({"a": VPS, "b": {**VPS, "task": "semantic", "weight": float("nan")}}, "members.b.weight=nan"),
        ({"a": VPS, "b": {**VPS, "task": "vos"}}, "members.b: infer.task='vos': its scores are not of the"),
        ({"a": VPS, "b": {"checkpoint": "image", "task": "panoptic"}}, "members.b: infer.task='panoptic': expected"),
        (
            {"a": VPS, "b": {"checkpoint": "things_first", "task": "semantic"}},
            "members.b: has 'door' in place of 'wall'",
        ),
        ({"a": VPS, "b": {"scores": "x", "task": "depth"}}, "members.b: task='depth': no model has it"),
        ({"a": {**VPS, "weight": 0}}, "no weight is above 0"),
        ({"a": {**VPS, "ema": True}}, "members.a.ema: no such key"),
        ({"a": VPS, "b": {"task": "semantic"}}, "members.b: has neither checkpoint nor scores"),
        (
            {"b": {"task": "semantic"}, "c": {"scores": "x", "task": "depth"}},
            "members.b: has neither .*; members.c: task='depth': no model has it",
        ),
    ],
)
def test_what_does_not_fit_is_named(rows, message):
    with pytest.raises(UserError, match=message):
        read(**rows)


def test_one_of_several_panoptic_members_can_be_named():
    _, things = read(a=VPS, b={**VPS, "weights": "raw"}, things="b")
    assert things.identity == "tarvis@raw"


@pytest.mark.parametrize("name", ["vps", "image", "vss", "nobody"])
def test_only_another_member_with_tracks_can_be_matched(name):
    rows = {"vps": VPS, "raw": {**VPS, "weights": "raw"}, "image": {"checkpoint": "image"},
            "vss": {**VPS, "task": "semantic"}}  # fmt: skip
    config = {"members": rows, "things": "vps", "matching": {"member": name}}
    message = f"matching.member='{name}': expected another panoptic member .* than vps \\(there: raw\\)"
    with pytest.raises(UserError, match=message):
        read_members(config, open_checkpoint)
    members, things = read_members({**config, "matching": {"member": "raw"}}, open_checkpoint)
    assert things.name == "vps" and len(members) == 4


def test_unknown_ways_of_running_are_named():
    with pytest.raises(UserError, match="run='parallel': expected one of together, in_turn"):
        parse(EnsembleConfig, {"members": {}, "run": "parallel"})
    with pytest.raises(UserError, match="weights: no such key"):
        parse(EnsembleConfig, {"members": {}, "weights": 1})


def test_kept_scores_belong_to_weights_and_settings(tmp_path):
    (vps, vss), _ = read(vps=VPS, vss={**VPS, "task": "semantic"})
    folder = kept_folder(tmp_path, vss)
    assert folder.name.startswith("vss-")
    flipped = dataclasses.replace(vss.infer, flip=True)
    for other in (vss._replace(identity="other"), vss._replace(infer=flipped)):
        assert kept_folder(tmp_path, other) != folder
    assert kept_folder(tmp_path, vss._replace(weight=3.0, scale="log_softmax")) == folder


def test_scores_on_another_grid_are_made_anew(tmp_path):
    (vps, vss), _ = read(vps=VPS, vss={**VPS, "weights": "raw", "task": "semantic"})
    video = Video("v", 2, 6.0, None, lambda: (50, 80), ("1", "2"))
    keep(kept_folder(tmp_path, vss))
    finer = vps._replace(infer=dataclasses.replace(vps.infer, short_side_px=96))
    for things, done in ((vps, True), (finer, False)):
        ensemble = Ensemble([things, vss], things, keep=tmp_path)
        assert ensemble.is_done(ensemble.groups[1], video) is done


def test_scores_of_another_video_of_the_same_name_are_made_anew(tmp_path):
    (vps, vss), _ = read(vps=VPS, vss={**VPS, "weights": "raw", "task": "semantic"})
    keep(kept_folder(tmp_path, vss), source="one")
    ensemble = Ensemble([vps, vss], vps, keep=tmp_path)
    for source, done in (("one", True), ("two", False)):
        video = Video("v", 2, 6.0, None, lambda: (50, 80), ("1", "2"), fingerprint=lambda source=source: source)
        assert ensemble.is_done(ensemble.groups[1], video) is done


STUFF = tuple(VIPSEG.names[c] for c in VIPSEG.stuff_ids)
SIZES = geometry((50, 80), short_side=64, max_side=200)


def keep(folder, stems=("1", "2"), classes=STUFF, sizes=SIZES, source=""):
    header = kept_scores.ScoreHeader("m", classes, sizes, source)
    with kept_scores.write_scores(kept_scores.score_path(folder, "v"), header) as append:
        for stem in stems:
            append(stem, np.zeros((len(classes), 2, 2), np.float16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        (None, "members.kept: .*v.scores is missing"),
        ({"classes": STUFF[1:]}, "members.kept: .* has 65 instead of 66"),
        ({"classes": (*STUFF[1:], STUFF[0])}, "members.kept: .* has 'ceiling' in place of 'wall'"),
        ({"stems": ("1",)}, "members.kept: .* has 1 instead of 2 frames"),
        ({"stems": ("1", "3")}, "members.kept: .* has '3' in place of '2' frames"),
        ({"sizes": Geometry((64, 64), (64, 64), (50, 80))}, "members.kept: .* is for sizes"),
    ],
)
def test_a_member_given_by_its_scores(tmp_path, change, message):
    video = Video("v", 2, 6.0, None, lambda: (50, 80), ("1", "2"))
    if change is not None:
        keep(tmp_path, **change)
    found, things = read(vps=VPS, kept={"scores": str(tmp_path)})
    if message is None:
        check_kept(found, things, [video])
        return
    with pytest.raises(UserError, match=message):
        check_kept(found, things, [video])


def test_the_shipped_config_describes_three_members():
    checkpoints = {"runs/stage4": "tarvis", "runs/stage3": "tarvis", "runs/vspw_vit_adapter": "image"}
    config = ensemble.get_config().to_dict()
    found, things = read_members(config, lambda path, weights: open_checkpoint(checkpoints[path], weights))
    assert [m.name for m in found] == ["image", "vps", "vss"] and things.name == "vps"


@pytest.mark.parametrize("things", ["videomt", "vps"])
def test_the_shipped_config_with_videomt_takes_its_published_weights(things):
    """The full-size models, converted as the table of weights says; no weights are read."""

    def published(path, weights):
        if path == "runs/stage4":
            return open_checkpoint("tarvis", weights)
        config = config_of(catalogue.find(path.removeprefix("runs/")))
        load = lambda: pytest.fail("loaded")  # noqa: E731
        return Checkpoint(config.model, config.infer, class_table(config.infer.taxonomy), path, load)

    found, chosen = read_members(ensemble_videomt.get_config(things).to_dict(), published)
    members = {member.name: member for member in found}
    assert sorted(members) == ["videomt", "vps", "vspw"] and chosen.name == things
    assert members["videomt"].has_tracks and members["vps"].has_tracks and not members["vspw"].has_tracks
    assert dict(members["vspw"].module.semantic_groups) == {"VSPW": 124}
    assert [members[name].scale for name in sorted(members)] == ["log_scores", "logits", "log_scores"]


def test_a_member_decides_which_class_logits_its_maps_are_made_of():
    for row, expected in (({}, True), ({"frame_classes": False}, False)):
        infer = member_settings(QueryInference(frame_classes=True), parse(MemberConfig, {"checkpoint": "a", **row}))
        assert infer.frame_classes is expected
    with pytest.raises(UserError, match="frame_classes"):
        read(vps=VPS, other={"checkpoint": "tarvis", "task": "semantic", "frame_classes": True})
