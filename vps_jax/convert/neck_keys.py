"""Key table of TarViS's temporal neck (spec: tarvis 10)."""

from vps_jax.convert.rules import POINTWISE, Rule, Table, attention, conv, linear, norm


def table(num_layers: int, *, key: str = "backbone.fpn.", path: str = "params/neck") -> Table:
    """Every entry of the neck in a TarViS file.

    Args:
      num_layers: pairs of layers (6 in the published models).
      key: what the published names begin with.
      path: where our neck's parameters are.
    """
    rules = []
    for i in range(3):
        rules += conv(f"{key}input_proj.{i}.0", f"{path}/input_proj_{i}", transform=POINTWISE)
        rules += norm(f"{key}input_proj.{i}.1", f"{path}/input_norm_{i}")
    for name in ("level_embed", "level_embed_3d"):
        rules.append(Rule(f"{key}transformer.{name}", f"{path}/{name}"))
    for i in range(num_layers):
        encoder = f"{key}transformer.encoder"
        spatial = f"{path}/layers/spatial"
        rules += _layer(f"{encoder}.layers.{i}", spatial, i)
        rules += _layer(f"{encoder}.temporal_layers.{i}", f"{path}/layers/temporal", i)
        for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
            rules += linear(f"{encoder}.layers.{i}.self_attn.{name}", f"{spatial}/self_attn/{name}", index=i)
        rules += attention(f"{encoder}.temporal_layers.{i}.self_attn", f"{path}/layers/temporal/self_attn", index=i)
    rules += conv(f"{key}adapter_1", f"{path}/adapter_1", bias=False, transform=POINTWISE)
    rules += norm(f"{key}adapter_1.norm", f"{path}/adapter_1_norm")
    rules += conv(f"{key}layer_1", f"{path}/layer_1", bias=False) + norm(f"{key}layer_1.norm", f"{path}/layer_1_norm")
    rules += conv(f"{key}mask_features", f"{path}/mask_features", transform=POINTWISE)
    return Table(tuple(rules))


def _layer(key: str, path: str, i: int) -> list[Rule]:
    """Norms and feed-forward net of encoder layer i: slice i of the stacked parameters at `path`."""
    rules = norm(f"{key}.norm1", f"{path}/norm1", index=i) + norm(f"{key}.norm2", f"{path}/norm2", index=i)
    for name in ("linear1", "linear2"):
        rules += linear(f"{key}.{name}", f"{path}/ffn/{name}", index=i)
    return rules
