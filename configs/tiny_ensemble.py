"""An ensemble at small scale: the model of configs/tiny.py and the ViT-Adapter of configs/vspw_tiny.py.

Command:   python main.py && python main.py --config configs/vspw_tiny.py      (the members)
           python main.py --config configs/tiny_ensemble.py --mode evaluate
Hardware:  two CPU cores
Expected:  48.4 to 48.6 VPQ over three seeds of its first member, which alone has 42.1 to 42.6
Weights:   chosen on these validation videos over three seeds, with stage 4 of the tiny chain as first member (47.9; on
           videos of another seed 46.9); see docs/results.md

The demo's last step; it trains the second member for fewer steps, see `image_experiment`.
"""

from configs import common, tiny, vspw_tiny
from vps_jax import config as keys

IMAGE_STEPS = 700  # in the demo


def get_config():
    config = common.section(
        keys.EnsembleConfig(
            name="tiny_ensemble",
            things="vps",
            members={
                "vps": keys.MemberConfig(checkpoint="runs/tiny", task="panoptic", group="VIPSEG", weight=0.25),
                "image": keys.MemberConfig(
                    checkpoint="runs/vspw_tiny",
                    task="mask_classification",
                    group="VSPW",
                    scale="log_scores",
                    weight=0.75,
                ),
            },
        )
    )
    config.evaluate = tiny.get_config().evaluate.copy_and_resolve_references()
    return config


def image_experiment():
    """configs/vspw_tiny.py on the scenes of configs/tiny.py's training videos, as long as a demo allows.

    A scene follows from the seed and its split: no validation video of the one data set is a training video of the
    other. VSPW's validation videos are those of VIPSeg, which the ensemble is scored on, so one is enough here.
    """
    config, videos = vspw_tiny.get_config(), tiny.get_config().synthetic
    config.synthetic.update(seed=videos.seed, train=videos.train, val=1, test=1)
    config.train.steps = config.optim.total_steps = config.train.checkpoint_every = IMAGE_STEPS
    config.train.evaluate_every = 0
    return config
