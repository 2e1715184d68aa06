"""The stages at small scale, to run the chain of stages on two CPU cores.

Command:   python main.py --config configs/tiny_stages.py:STAGE --workdir DIR --config.init_from.path=EARLIER
           STAGE: stage2 (default; from random weights), stage3 (from stage2), stage4 (from stage3), vps_alone;
           stage1 (from random weights) and stage2_sets (from stage1), on synthetic videos in the layouts of all their
           data sets
Chain:     python -m benchmarks.stage_chain, and with --all-sets from stage1 over stage2_sets to stage4
Hardware:  one CPU core or more, 4 GB of memory
Time:      about four minutes a stage on one core, compilation aside
Expected:  VPQ of the EMA weights about 31 after stage 2, 41 after stages 3 and 4; see docs/results.md

Tasks, query groups, hand-over and what stays frozen are those of the stages, the schedule is `stepwise` of
configs/tiny.py, and everything else is that of its `get_config`. `vps_alone` is what joint training is compared with:
stage 3's steps and rate on VPS alone.
"""

import pathlib

from configs import common, datasets, stage1, stage2, stage3, stage4, tiny

STEPS = {"stage1": 500, "stage2": 500, "stage2_sets": 500, "stage3": 500, "vps_alone": 500, "stage4": 150}
MODELS = {
    "stage1": stage1, "stage2": stage2, "stage2_sets": stage2, "stage3": stage3, "vps_alone": stage4, "stage4": stage4,
}  # fmt: skip


def get_config(name: str = "stage2"):
    stage, config = MODELS[common.choose(name, MODELS)].get_config(), tiny.get_config()
    config.name = f"tiny_{name}"
    config.model.semantic_groups = stage.model.semantic_groups
    config.model.vos = stage.model.vos
    config.infer.semantic_group = stage.infer.semantic_group
    config.init_from = stage.init_from
    config.class_maps = stage.class_maps
    for task in stage.tasks.values():
        points = config.tasks.panoptic
        task.update({key: points[key] for key in task if key.endswith("_points")})
    config.tasks = stage.tasks
    frozen = tuple(row for row in stage.optim.lr_groups if row[2] == 0)
    config.optim.lr_groups = (*frozen, *config.optim.lr_groups)
    config.optim.no_decay = stage.optim.no_decay
    tiny.stepwise(config, STEPS[name])
    if name == "stage4":
        config.optim.lr *= stage.optim.lr / common.base().optim.lr
    config.train.evaluate_every *= stage.train.evaluate_every > 0
    prepared = config.synthetic.get_ref("folder") + "/prepared"
    video = config.data.sources.vipseg.to_dict() | {"path": prepared + "/vipseg"}  # follows the folder
    if name in ("stage1", "stage2_sets"):
        use_all_data_sets(config, stage, video, prepared)
    elif name == "stage2":
        use_three_data_sets(config, video, {"path": prepared + "/davis"})
    else:
        keys = ("task", "group", "weight")
        config.data.sources = {
            n: common.source(**video | {key: s[key] for key in keys}) for n, s in stage.data.sources.items()
        }
    return config


def use_three_data_sets(config, video: dict, davis: dict) -> None:
    """Stage 2 at small scale: VIPSeg, the same videos as an instance set with classes of its own, and as DAVIS."""
    config.synthetic.also = ("davis",)
    config.model.semantic_groups = (("THINGS", len(datasets.VIPSEG_THINGS)), ("VIPSEG", datasets.CLASSES["VIPSEG"]))
    config.init_from.groups = ()
    config.class_maps = {"things": datasets.things_renumbered("VIPSEG")}
    davis["frame_window"] = 3 * video["frame_window"]  # at three times the frame rate
    davis["objects"] = (2,)  # each number of objects has programs of its own
    config.data.sources = {
        "vipseg": common.source(**video | {"weight": 0.5, "task": "panoptic"}),
        "things": common.source(**video | {"weight": 0.25, "task": "instance", "group": "THINGS"}),
        "davis": common.source(**video | davis | {"weight": 0.25, "task": "vos"}),
    }


def use_all_data_sets(config, stage, video: dict, prepared) -> None:
    """The sources of a stage, each from the synthetic twin of its data set, at the size of `video`."""
    names = {key: pathlib.PurePath(source.path).name for key, source in stage.data.sources.items()}
    config.synthetic.also = tuple(dict.fromkeys(name for name in names.values() if name != "vipseg"))
    small = {key: video[key] for key in ("short_side", "max_side", "crop")}
    small["objects"] = (2,)  # each number of objects has programs of its own
    views = {"short_side": (64, 68, 72), "crop_px": (64, 64)}  # an eighth of stage 1's
    config.data.sources = {
        key: common.source(**source.to_dict() | small | (views if source.crop_px else {}) | {
            "path": prepared + f"/{names[key]}"
        })
        for key, source in stage.data.sources.items()
    }  # fmt: skip
