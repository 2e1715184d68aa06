"""A tiny synthetic VIPSeg, raw and prepared, made once."""

import pytest

from vps_jax.data import prepare, synthetic


@pytest.fixture(scope="session")
def raw_vipseg(tmp_path_factory):
    """Raw layout: 8 train, 2 val, 1 test videos of 4 and 6 frames, 40x72 and 48x64 pixels. Read only."""
    root = tmp_path_factory.mktemp("data") / "raw"
    sizes = ((40, 72), (48, 64))
    synthetic.synthesize(root, seed=3, train=8, val=2, test=1, sizes=sizes, lengths=(4, 6), progress=False)
    return root


@pytest.fixture(scope="session")
def prepared_vipseg(raw_vipseg, tmp_path_factory):
    """The same as records: the folder that `data.sources.*.path` names."""
    out = tmp_path_factory.mktemp("prepared")
    prepare.prepare("vipseg", raw_vipseg, out, progress=False)
    return out / "vipseg"
