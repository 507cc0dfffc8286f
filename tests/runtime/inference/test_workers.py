"""Work side by side: results in order, no more under way than wanted, and nothing begun that nobody asks for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

import pytest

from kcompiler.runtime.inference import workers as module
from kcompiler.runtime.inference.workers import Workers

PATIENCE = 30
"""Seconds after which what never comes is no longer waited for; whatever works does not wait for so long."""
MANY = 100


class Watched:
    """Doubles numbers, and notes which it began and how many at once.

    A number for which ``held_by`` returns an event is under way until that.
    """

    def __init__(self, held_by: Callable[["Watched", int], threading.Event | None] = lambda work, number: None) -> None:
        self.held_by, self.begun, self.at_once, self.most = held_by, [], 0, 0
        self.started, self.done = ([threading.Event() for _ in range(MANY)] for _ in range(2))
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.begun.append(number)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.started[number].set()
        held_by = self.held_by(self, number)
        assert held_by is None or held_by.wait(PATIENCE)
        with self._lock:
            self.at_once -= 1
        self.done[number].set()
        return 2 * number


class Clock:
    """Stands still but for its ticks, and remembers when it was looked at."""

    def __init__(self) -> None:
        self.now, self.seen, self._lock = 0, [], threading.Lock()

    def tick(self) -> None:
        with self._lock:
            self.now += 1

    def perf_counter(self) -> int:
        with self._lock:
            self.seen.append(self.now)
            return self.now


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 2, 5, 20])
def test_results_come_in_order(count, items):
    """Though of several workers every second item is done before the one in front of it."""
    several = count > 1
    work = Watched(lambda work, number: work.done[number + 1] if several and number % 2 == 0 and number + 1 < items else None)
    assert list(Workers(count).map(work, range(items))) == [2 * number for number in range(items)]
    assert sorted(work.begun) == list(range(items))
    assert min(count, items, 2) <= work.most <= count


def test_several_are_under_way_at_once():
    """Each waits for the other: one after the other would wait for ever."""
    meet = threading.Barrier(2, timeout=PATIENCE)
    assert list(Workers(2).map(lambda item: (meet.wait(), item)[1], range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("deadline", [0, 1, 2, 20])
def test_nothing_is_begun_after_the_deadline(count, deadline, monkeypatch):
    """But the first item; and whatever had begun is handed out. Each item takes a tick of the clock."""
    clock, begun = Clock(), []
    monkeypatch.setattr(module, "time", clock)

    def work(number):
        begun.append(number)
        clock.tick()
        return number

    results = list(Workers(count).map(work, range(1000), deadline))
    assert results == sorted(begun) == list(range(len(begun)))
    assert len(begun) == 1 + sum(at < deadline for at in clock.seen), "the first, and those for which there was time"
    assert max(deadline, 1) <= len(begun) <= max(deadline + count - 1, 1), "those that were under way when it was over, too"


def test_ctrl_c_loses_nothing_that_had_begun(monkeypatch):
    """Raised while the third result is waited for, which is under way until it is waited for again."""
    again = threading.Event()
    workers, work = Workers(2), Watched(lambda work, number: again if number >= 2 else None)
    results = workers.map(work, range(MANY))
    assert [next(results), next(results)] == [0, 2]
    real, calls = Future.result, []

    def interrupted(future, timeout=None):
        calls.append(future)
        if len(calls) == 1:
            assert work.started[2].wait(PATIENCE)
            raise KeyboardInterrupt
        again.set()
        return real(future, timeout)

    monkeypatch.setattr(Future, "result", interrupted)
    rest = []
    with pytest.raises(KeyboardInterrupt):
        rest.extend(iter(results.__next__, None))
    assert work.at_once == 0
    assert [0, 2, *rest] == [2 * number for number in sorted(work.begun)]
    assert 3 <= len(work.begun) <= 4, "one for each worker was under way"


@pytest.mark.parametrize("count", [1, 3])
def test_whoever_stops_asking_waits_for_what_is_under_way(count, monkeypatch):
    """What is under way is held until it is waited for, so that who does not wait leaves it there."""
    awaited = threading.Event()
    monkeypatch.setattr(module, "wait", lambda futures: (awaited.set(), wait(futures))[1])
    workers, work = Workers(count), Watched(lambda work, number: awaited if number >= 2 else None)
    results = workers.map(work, range(MANY))
    try:
        assert [next(results), next(results)] == [0, 2]
        assert count == 1 or work.started[2].wait(PATIENCE)
        results.close()
        assert work.at_once == 0
    finally:
        awaited.set()
    begun = list(work.begun)
    workers._pool.shutdown()  # when whatever was left in line has been run
    assert work.begun == begun
    assert len(begun) == 2 if count == 1 else 3 <= len(begun) <= 2 + count


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_is_raised_where_its_result_would_come(count):
    def fail(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = Workers(count).map(fail, range(50))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_ctrl_c_after_the_deadline_is_not_lost(monkeypatch):
    """What has not begun by then ends the results of whoever asks, but not before the interrupt is raised."""
    workers = Workers(2)
    results = workers.map(lambda number: number, range(6), float("-inf"))
    assert next(results) == 0
    real, calls = Future.result, []

    def interrupted(future, timeout=None):
        calls.append(future)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(future, timeout)

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(results)
