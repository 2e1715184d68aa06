"""The paper's final predictor: stuff scores of TarViS-VPS, TarViS-VSS and ViT-Adapter, things of TarViS-VPS.

Command:   python main.py --config configs/ensemble.py --mode evaluate     (or predict: the split of `evaluate`)
           vps-jax predict VIDEOS --ensemble configs/ensemble.py --output DIR
Needs:     the checkpoints of stage 4, of stage 3 (stage 4 no longer trains its VSS queries) and of the ViT-Adapter

The paper takes the plain mean of "logits", whose scales differ: TarViS gives unbounded products, the ViT-Adapter sums
of probabilities. `vps-jax tune-ensemble` chooses scales and weights on a split with truth; see docs/inference.md.
"""

from configs import common
from vps_jax import config as keys


def get_config():
    return common.section(
        keys.EnsembleConfig(
            things="vps",  # the member whose tracks are painted
            run="together",  # or "in_turn": one member's weights in memory at a time, the others' scores on disk
            members={
                "vps": keys.MemberConfig(checkpoint="runs/stage4", task="panoptic", group="VIPSEG"),
                "vss": keys.MemberConfig(checkpoint="runs/stage3", task="semantic", group="VIPSEG_VSS"),
                "image": keys.MemberConfig(
                    checkpoint="runs/vspw_vit_adapter",
                    task="mask_classification",
                    group="VSPW",
                    scale="log_scores",  # the paper's words are "logits"
                ),
            },
        )
    )
