"""Working ahead in a thread changes nothing but the time."""

import threading
import time

import pytest

from vps_jax.media.background import ahead


def test_items_come_in_order():
    assert list(ahead(iter(range(100)), 3)) == list(range(100))
    assert list(ahead([], 1)) == []


def test_the_thread_is_only_so_far_ahead():
    made = []

    def items():
        for i in range(20):
            made.append(i)
            yield i

    for i in ahead(items(), 2):
        time.sleep(0.002)
        assert len(made) <= i + 4  # this one, two that wait, one in the making


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(items(), 5):
            seen.append(item)
    assert seen == [1, 2]


def test_stopping_early_closes_the_source_and_ends_the_thread():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread())

    before = threading.active_count()
    iterator = ahead(items(), 2)
    assert next(iterator) == 0
    iterator.close()
    assert len(closed) == 1 and closed[0] is not threading.main_thread()
    assert threading.active_count() == before
