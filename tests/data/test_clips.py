import numpy as np

from vps_jax.data import clips


def draw(has_instance, length=3, window=5.0, seed=0):
    return clips.choose_frames(has_instance, length, window=window, rng=np.random.default_rng(seed))


def test_a_reference_frame_shows_an_instance_and_the_rest_are_near():
    has_instance = [i == 20 for i in range(60)]
    for seed in range(200):
        frames = draw(has_instance, seed=seed)
        assert 20 in frames and len(set(frames)) == 3 and list(frames) == sorted(frames)
        assert all(5 <= f <= 35 for f in frames)  # round(5 * 3) = 15 to either side


def test_every_frame_of_the_neighbourhood_comes_and_at_equal_rates():
    middle = [i == 2 for i in range(5)]
    counts = np.bincount([f for s in range(3000) for f in draw(middle, 2, 1.0, s)], minlength=5)
    assert counts[2] == 3000 and counts.sum() == 6000
    np.testing.assert_allclose(counts[[0, 1, 3, 4]], 750, atol=100)


def test_reach_rounds_half_to_even():
    # 0.5 * 5 = 2.5 -> 2 frames to either side
    seen = {f for s in range(300) for f in draw([i == 10 for i in range(21)], 5, 0.5, s)}
    assert seen == {8, 9, 10, 11, 12}


def test_short_videos_repeat_frames():
    for seed in range(50):
        frames = draw([True, True], length=4, seed=seed)
        assert len(frames) == 4 and set(frames) == {0, 1}
    assert draw([True], length=3) == (0, 0, 0)


def test_without_instances_any_frame_is_a_reference():
    assert {draw([False] * 6, 1, 0.0, s) for s in range(200)} == {(i,) for i in range(6)}


def follow(can_start, length=3, window=7.5, seed=0):
    return clips.choose_following_frames(can_start, length, window=window, rng=np.random.default_rng(seed))


def test_vos_reference_comes_first_and_the_rest_from_its_window():
    can_start = [i == 10 for i in range(80)]
    draws = [follow(can_start, seed=s) for s in range(2000)]
    assert all(d[0] == 10 and len(set(d)) == 3 and list(d) == sorted(d) for d in draws)
    # round(7.5 * 3) = 22: ref + 1 .. ref + 21 (spec: tarvis 7.6, DAVIS)
    assert {f for d in draws for f in d[1:]} == set(range(11, 32))


def test_vos_references_have_room_behind_them_where_possible():
    assert {follow([True] * 5, seed=s)[0] for s in range(200)} == {0, 1, 2}
    assert {follow([False, False, False, True, True], seed=s)[0] for s in range(50)} == {3, 4}
    assert {follow([False, True], 4, seed=s) for s in range(5)} == {(1, 1, 1, 1)}


def test_without_a_window_frames_follow_each_other_from_any_start():
    rng = np.random.default_rng(0)
    found = {clips.choose_frames([False] * 7, 5, window=0, rng=rng) for _ in range(100)}
    assert found == {tuple(range(start, start + 5)) for start in range(3)}  # the last start too
    short = {clips.choose_frames([True] * 3, 5, window=0, rng=rng) for _ in range(50)}
    assert all(set(frames) == {0, 1, 2} and list(frames) == sorted(frames) for frames in short) and len(short) > 1
