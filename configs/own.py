"""A user's own data at small scale, from the folder that `vps-jax data prepare own` wrote.

Command:   python main.py --config configs/own.py:KIND,tiny --config.own.data=FOLDER --workdir DIR
           KIND: semantic (default; classes alone), panoptic (things with tracks), image (classes, frame by frame)
Hardware:  two CPU cores, 2 GB of memory
Time:      about 8 minutes
Expected:  depends on the data; see docs/own_data.md

Classes, their number, the records and the truth come from the folder.
"""

from configs import common, tiny, vspw_tiny
from vps_jax import config as keys

KINDS = ("semantic", "panoptic", "image")
SIZES = ("tiny",)
GROUP, CLASSES = "OWN", 1  # the number is that of the folder's class file once it is known


def get_config(argument: str = "semantic,tiny"):
    kind, _, size = argument.partition(",")
    common.choose(kind, KINDS)
    common.choose(size or "tiny", SIZES)
    config = vspw_tiny.get_config() if kind == "image" else tiny.get_config()
    config.name = f"own_{kind}"
    config.synthetic.folder = ""
    config.own.group = GROUP
    config.model.semantic_groups = ((GROUP, CLASSES),)
    config.infer.semantic_group = GROUP
    config.evaluate.truth = config.evaluate.layout = ""  # of the folder
    (source,) = config.data.sources.values()
    source = source.to_dict() | {"path": "", "group": GROUP}
    if kind == "semantic":
        config.tasks = {"semantic": common.section(keys.Semantic(semantic_points=256))}
        config.infer.task = source["task"] = "semantic"
    config.data.sources = {"own": common.source(**source)}
    things = kind == "panoptic"
    config.evaluate.metrics = ("vpq", "stq", "miou") if things else ("miou",)
    config.train.best_metric = "vpq" if things else "miou"
    return config
