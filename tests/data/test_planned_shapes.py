"""The shapes that a plan takes from prepared videos are those of the stream."""

import pytest

from vps_jax.config import Data, Source
from vps_jax.data import pipeline
from vps_jax.data.validation import validated
from vps_jax.train import plan


def test_shapes_are_those_of_the_programs(prepared_vipseg):
    source = Source(str(prepared_vipseg), short_side=128, max_side=256)
    data = validated(Data({"vipseg": source, "gone": Source("nowhere/prepared", short_side=720, max_side=1333)}))
    shapes, assumed = plan.shapes_of(data)
    assert assumed == ("gone",)
    assert [shape.size for shape in shapes if shape.source == "gone"] == [(768, 1280)]
    found = [shape for shape in shapes if shape.source == "vipseg"]
    described = pipeline.describe(Data({"vipseg": source}))
    assert {shape.size for shape in found} == {shape[2:] for _, _, shape in described}
    assert len(found) == 2 and sum(shape.share for shape in found) == pytest.approx(1)
    assert {shape.rows for shape in found} == {64}
