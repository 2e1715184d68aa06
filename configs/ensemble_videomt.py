"""An ensemble around VidEoMT: its things, and stuff scores of it, of VidEoMT on VSPW and of TarViS.

Command:   python main.py --config configs/ensemble_videomt.py[:THINGS] --mode evaluate     (or predict)
           vps-jax predict VIDEOS --ensemble configs/ensemble_videomt.py --output DIR
           THINGS: videomt (default), or vps for the identities of TarViS
Needs:     vps-jax weights get videomt_large_vipseg --output runs/videomt_large_vipseg
           vps-jax weights get videomt_large_vspw --output runs/videomt_large_vspw
           and the checkpoint of stage 4
Expected:  not measured. VidEoMT alone is published with 55.2 VPQ on val, TarViS with 48.0 [spec 9]: the mean of equal
           weights may be worse than VidEoMT. Report the members alone; `vps-jax tune-ensemble` chooses weights.
           VIPSeg and VSPW hold the same videos: do not choose on a split that one of the members was trained on.

VidEoMT on VSPW takes the place of the ViT-Adapter of configs/ensemble.py: its weights are published, and a frame costs
less than a fifth by count [spec 10]. Sections are those of docs/reference/videomt.md.
"""

from configs import common
from vps_jax import config as keys


def get_config(things: str = "videomt"):
    others = {"videomt": "vps", "vps": "videomt"}
    other = others[common.choose(things, others)]
    return common.section(
        keys.EnsembleConfig(
            name="ensemble_videomt",
            things=things,
            matching=keys.Matching(member=other),  # masks of both, identities of `things` [spec 11]
            members={
                "videomt": keys.MemberConfig(
                    checkpoint="runs/videomt_large_vipseg",
                    task="panoptic",
                    group="VIPSEG",
                    scale="log_scores",  # sums of probabilities, as the ViT-Adapter's [spec 11]
                ),
                "vspw": keys.MemberConfig(
                    checkpoint="runs/videomt_large_vspw",
                    task="semantic",
                    group="VSPW",
                    scale="log_scores",
                    frame_classes=False,  # or True: class maps of each frame by itself, as of an image model
                ),
                "vps": keys.MemberConfig(checkpoint="runs/stage4", task="panoptic", group="VIPSEG"),
            },
        )
    )
