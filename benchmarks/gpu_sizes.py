"""How large everything in a GPU session is: the published sizes, and toys of every row for any machine."""

import dataclasses

from vps_jax import config

GROUP = "VIPSEG"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
      model: `config.model` of the steps; the backbone stands in `steps` and `inference`.
      task: numbers of the panoptic task, see `config.Panoptic`; None for the published ones.
      steps: (backbone, height, width, batch) of training steps, by worth.
      frames: of a training clip.
      inference: backbone, frames of a clip, frames it shares with the one before, height, width.
      deformable: frames, and (height, width) of the levels.
      keys: numbers of keys of the cross-attention.
      problems, objects, padded, queries: of the matching.
      matrix: side of the product that measures the card's rate.
      contended: scatter-add of so many rows.
      golden: golden cases to compare, backbone and neck.
      repeats: timed calls.
    """

    model: dict
    task: dict | None
    steps: tuple[tuple[str, int, int, int], ...]
    frames: int
    inference: tuple[str, int, int, int, int]
    deformable: tuple[int, tuple[tuple[int, int], ...]]
    keys: tuple[int, ...]
    problems: int
    objects: int
    padded: int
    queries: int
    matrix: int
    contended: int
    golden: tuple[str, ...]
    repeats: int


def full_model() -> dict:
    return dataclasses.asdict(config.Tarvis(remat=False, dtype="bfloat16"))


FULL = Sizes(
    model=full_model(),
    task=None,
    steps=(
        ("swin_large", 512, 960, 4),
        ("swin_tiny", 512, 960, 4),
        ("swin_large", 512, 640, 4),
        ("swin_large", 512, 960, 1),
        ("swin_large", 512, 960, 2),
        ("swin_tiny", 512, 640, 4),
        ("swin_large", 512, 640, 1),
        ("swin_large", 512, 640, 2),
        ("swin_tiny", 512, 960, 1),
        ("swin_tiny", 512, 960, 2),
        ("swin_tiny", 512, 640, 1),
        ("swin_tiny", 512, 640, 2),
    ),
    frames=3,
    inference=("swin_large", 12, 6, 576, 1024),
    deformable=(3, ((16, 30), (32, 60), (64, 120))),
    keys=(23_040, 110_592),
    problems=40,
    objects=20,
    padded=64,
    queries=128,
    matrix=8192,
    contended=2**20,
    golden=("tarvis_a_vipseg_backbone", "tarvis_a_vipseg_neck"),
    repeats=10,
)
TOY = dataclasses.replace(
    FULL,
    model={
        **FULL.model,
        "semantic_groups": ((GROUP, 5),),
        "instance_queries": 6,
        "hidden_dim": 32,
        "num_heads": 2,
        "neck_layers": 1,
        "neck_ffn_dim": 32,
        "decoder_layers": 3,
        "decoder_ffn_dim": 32,
        "dtype": "float32",
    },
    task={"match_points": 16, "mask_points": 16, "semantic_points": 16},
    steps=(("swin_micro", 64, 64, 1),),
    frames=2,
    inference=("swin_micro", 2, 1, 64, 64),
    deformable=(1, ((2, 4), (4, 8))),
    keys=(256,),
    problems=2,
    objects=3,
    padded=4,
    queries=6,
    matrix=64,
    contended=64,
    golden=("tarvis_a_vipseg_backbone",),
    repeats=1,
)


def classes_of(sizes: Sizes) -> int:
    """Classes of the semantic group that is trained and asked for."""
    return dict(sizes.model["semantic_groups"])[GROUP]
