"""A backbone from outside of the package: a row makes it known to configs and models."""

import jax
import pytest
from flax import linen as nn

from vps_jax import convert, models
from vps_jax.models.backbones import BACKBONES, Backbone
from vps_jax.types import UserError


class Strided(nn.Module):
    """Four convolutions."""

    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, images, *, train: bool = False):
        maps = [nn.Conv(8, (4, 4), 4, dtype=self.dtype, name="stem")(images)]
        for i, width in enumerate((16, 24, 32)):
            maps.append(nn.Conv(width, (2, 2), 2, dtype=self.dtype, name=f"down_{i}")(maps[-1]))
        return tuple(maps)


ROW = Backbone(lambda *, dtype, **_: Strided(dtype), (8, 16, 24, 32))
CONFIG = {"name": "tarvis", "backbone": "strided", "hidden_dim": 32, "num_heads": 2, "neck_layers": 1,
          "decoder_layers": 3, "neck_ffn_dim": 8, "decoder_ffn_dim": 8, "dtype": "float32"}  # fmt: skip


def test_a_row_is_all_that_a_backbone_needs(monkeypatch):
    monkeypatch.setitem(BACKBONES, "strided", ROW)
    model = models.build(CONFIG)
    variables = models.shapes(model)
    assert set(variables["params"]["backbone"]) == {"stem", "down_0", "down_1", "down_2"}
    assert variables["params"]["neck"]["input_proj_0"]["kernel"].shape == (32, 32)
    with pytest.raises(UserError, match="backbone='strided': no published files are known"):
        convert.table(CONFIG)


def test_maps_of_other_strides_are_refused(monkeypatch):
    monkeypatch.setitem(BACKBONES, "strided", ROW._replace(strides=(8, 16, 32, 64)))
    with pytest.raises(UserError, match=r"backbone='strided': expected one with maps of strides \(4, 8, 16, 32\)"):
        models.build(CONFIG)


def test_an_unknown_backbone_is_refused_with_the_choices():
    with pytest.raises(UserError, match="backbone='strided': expected one of swin_micro, .*resnet50"):
        models.build(CONFIG)


@pytest.mark.parametrize("name", ["swin_micro", "resnet50", "resnet_micro"])
def test_channels_of_a_row_are_those_of_its_maps(name):
    row = BACKBONES[name]
    module = row.build(drop_path_rate=0.0, remat=False, dtype="float32")
    maps = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], jax.numpy.zeros((1, 64, 64, 3)))
    assert tuple(m.shape for m in maps) == tuple(
        (1, 64 // s, 64 // s, c) for s, c in zip(row.strides, row.channels, strict=True)
    )
