"""The Swin-L model on one clip, here: memory, and how far bfloat16 is from float32."""

import json
import pathlib
import resource
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
GIB = 12
REL_L2 = 2e-2

pytestmark = pytest.mark.acceptance


def test_one_clip_in_twelve_gibibytes_and_two_dtypes():
    command = [sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found.pop("gib") <= GIB
    assert max(found.values()) <= REL_L2, found


def main() -> None:
    """Rule-made weights through the converter, a clip of 3 x 256 x 448, both dtypes one after the other."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "golden")]
    import jax
    import numpy as np
    import tarvis_golden
    import weights_rule

    from vps_jax import convert, models

    config = tarvis_golden.SWIN_TINY | {"backbone": "swin_large"}
    listing = json.loads((ROOT / "tests" / "golden" / "tarvis_swin_large_keys.json").read_text())
    variables = convert.to_params(tarvis_golden.published(listing, seed=0), config)
    images = weights_rule.clip(0, 3, 256, 448)[None]

    def run(dtype, attend):
        """Maps of backbone and neck, queries and masks of all sets, float32; and one's own attention masks."""
        model = models.build(config | {"dtype": dtype})
        apply = jax.jit(model.apply, static_argnames=("method", "task", "group", "mutable"))
        features = apply(variables, images, method="backbone_features")
        maps = apply(variables, features, method="neck_maps")
        how = {"task": "panoptic", "group": "VIPSEG", "method": "decode", "mutable": ("intermediates",)}
        outputs, sown = apply(variables, maps, attend=attend, **how)
        results = {f"res{i + 2}": x for i, x in enumerate(features)}
        results |= {f"neck{i}": x for i, x in enumerate([*maps[0], maps[1]])}
        results |= {"queries": outputs.queries, "class_logits": outputs.class_logits}
        results["mask_embeds"] = np.concatenate([outputs.mask_embeds[g] for g in sorted(outputs.mask_embeds)], axis=2)
        return jax.tree.map(lambda x: np.asarray(x, np.float32), results), tarvis_golden.own_masks(sown)

    exact, masks = run("float32", None)
    low, _ = run("bfloat16", tarvis_golden.by_level(masks))
    found = {k: float(np.linalg.norm(low[k] - v) / np.linalg.norm(v)) for k, v in exact.items()}
    print(json.dumps(found | {"gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    main()
