"""The paper's final predictor: stuff scores of TarViS-VPS, TarViS-VSS and ViT-Adapter, things of TarViS-VPS.

Command:   python main.py --config configs/ensemble.py --mode evaluate     (or predict: the split of `evaluate`)
           vps-jax predict VIDEOS --ensemble configs/ensemble.py --output DIR
Needs:     the checkpoints of stage 4, of stage 3 (stage 4 no longer trains its VSS queries) and of the ViT-Adapter

The paper takes the plain mean of "logits", whose scales differ: TarViS gives unbounded products, the ViT-Adapter sums
of probabilities. `vps-jax tune-ensemble` chooses scales and weights on a split with truth; see docs/inference.md.
"""

import ml_collections

from configs import common


def get_config():
    return ml_collections.ConfigDict({
        "name": "ensemble",
        "things": "vps",  # the member whose tracks are painted
        "run": "together",  # or "in_turn": one member's weights in memory at a time, the others' scores on disk
        "keep_scores": "",  # folder for the scores of all members, for tuning
        "members": {
            "vps": {
                "checkpoint": "runs/stage4",
                "weights": "ema",  # or "raw"
                "task": "panoptic",
                "group": "VIPSEG",
                "scale": "logits",
                "weight": 1.0,
                "flip": False,
            },
            "vss": {
                "checkpoint": "runs/stage3",
                "weights": "ema",
                "task": "semantic",
                "group": "VIPSEG_VSS",
                "scale": "logits",
                "weight": 1.0,
                "flip": False,
            },
            "image": {
                "checkpoint": "runs/vspw_vit_adapter",
                "weights": "ema",
                "task": "mask_classification",
                "group": "VSPW",
                "scale": "log_scores",  # the paper's words are "logits"
                "weight": 1.0,
                "flip": False,
            },
        },
        "evaluate": common.evaluate(),
    })  # fmt: skip
