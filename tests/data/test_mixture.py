import collections
import concurrent.futures

import pytest

from vps_jax.data import mixture

BUCKETS = (
    mixture.Bucket("a", (64, 64), 64, 0, (0, 1, 2), 3.0),
    mixture.Bucket("a", (64, 128), 64, 0, (3,), 1.0),
    mixture.Bucket("b", (64, 64), 64, 0, (0, 1), 2.0),
)
WEIGHTS = {"a": 2.0, "b": 1.0, "c": 0.0}


def draws(steps, **changes):
    schedule = mixture.Schedule(BUCKETS, WEIGHTS, **{"chunk_steps": 2, **changes})
    return [schedule.batch(k) for k in range(steps)]


def test_weights_are_exact():
    counts = collections.Counter(BUCKETS[b].source for b, _ in draws(2 * 300))
    assert counts == {"a": 400, "b": 200}


def test_never_more_than_one_chunk_off():
    seen = collections.Counter()
    for k, (bucket, _) in enumerate(draws(120, chunk_steps=1), start=1):
        seen[BUCKETS[bucket].source] += 1
        assert abs(seen["a"] - k * 2 / 3) < 1


def test_buckets_follow_their_number_of_videos():
    counts = collections.Counter(b for b, _ in draws(2 * 1200))
    assert counts[0] == 3 * counts[1]


def test_a_rare_shape_fills_whole_chunks_and_keeps_its_share():
    """Its one video is in every clip of its chunks, and in the long run as often as any other video."""
    batch, steps = 4, 8 * 4 * 30
    schedule = mixture.Schedule(BUCKETS[:2], {"a": 1.0}, chunk_steps=8)
    seen, alone = collections.Counter(), []
    for step in range(steps):
        number, before = schedule.batch(step)
        videos = [mixture.video_of(BUCKETS[number], number, before * batch + i, seed=0) for i in range(batch)]
        seen.update(videos)
        alone.append(videos == [3] * batch)
    assert all(len(set(alone[k : k + 8])) == 1 for k in range(0, steps, 8))
    assert seen == dict.fromkeys(range(4), batch * steps // 4)


def test_chunks_keep_source_and_bucket():
    taken = draws(60, chunk_steps=3)
    for k in range(0, 60, 3):
        assert len({b for b, _ in taken[k : k + 3]}) == 1


def test_positions_of_a_bucket_run_on_without_gap():
    positions = collections.defaultdict(list)
    for bucket, before in draws(100):
        positions[bucket].append(before)
    for found in positions.values():
        assert found == list(range(len(found)))


def test_asking_in_any_order_gives_the_same():
    forward = draws(50)
    schedule = mixture.Schedule(BUCKETS, WEIGHTS, chunk_steps=2)
    assert [schedule.batch(k) for k in reversed(range(50))] == forward[::-1]


def test_many_threads_may_ask_at_once():
    schedule = mixture.Schedule(BUCKETS, WEIGHTS, chunk_steps=1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(schedule.batch, range(2000)))
    assert together == draws(2000, chunk_steps=1)


def test_three_equal_sources_take_turns():
    buckets = [mixture.Bucket(n, (64, 64), 64, 0, (0,), 1.0) for n in "xyz"]
    schedule = mixture.Schedule(buckets, dict.fromkeys("xyz", 1 / 3), chunk_steps=1)
    names = [buckets[schedule.batch(k)[0]].source for k in range(3000)]
    assert all(sorted(names[k : k + 3]) == ["x", "y", "z"] for k in range(0, 3000, 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_epoch_has_every_video_once_in_a_new_order(seed):
    bucket = mixture.Bucket("a", (64, 64), 64, 0, tuple(range(10, 30)), 1.0)
    epochs = [[mixture.video_of(bucket, 0, 20 * e + i, seed=seed) for i in range(20)] for e in range(3)]
    assert all(sorted(e) == list(range(10, 30)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3
    assert [mixture.video_of(bucket, 0, i, seed=seed + 5) for i in range(20)] != epochs[0]
    assert [mixture.video_of(bucket, 1, i, seed=seed) for i in range(20)] != epochs[0]
