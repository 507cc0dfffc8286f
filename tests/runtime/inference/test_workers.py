"""Work side by side: results in order, no more under way than wanted, and nothing begun that nobody asks for."""

import threading
import time
from concurrent.futures import Future

import pytest

from kcompiler.runtime.inference.workers import Workers


class Watched:
    """Doubles numbers, slowest first, and notes which it began and how many at once."""

    def __init__(self, pause=0.0):
        self.pause, self.begun, self.at_once, self.most = pause, [], 0, 0
        self._lock = threading.Lock()

    def __call__(self, number):
        with self._lock:
            self.begun.append(number)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.pause * (1 + (number % 2 == 0)))
        with self._lock:
            self.at_once -= 1
        return 2 * number


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 2, 5, 20])
def test_results_come_in_order(count, items):
    work = Watched(0.001)
    assert list(Workers(count).map(work, range(items))) == [2 * number for number in range(items)]
    assert sorted(work.begun) == list(range(items))
    assert work.most <= count


def test_several_are_under_way_at_once():
    """Each waits for the other: one after the other would wait for ever."""
    meet = threading.Barrier(2, timeout=30)
    assert list(Workers(2).map(lambda item: (meet.wait(), item)[1], range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nothing_is_begun_after_the_deadline(count):
    """But the first item; and whatever had begun is handed out."""
    started = {}

    def work(number):
        started[number] = time.perf_counter()
        time.sleep(0.004 if number % 2 else 0.001)
        return number

    deadline = time.perf_counter() + 0.02
    results = list(Workers(count).map(work, range(1000), deadline))
    assert results == list(range(len(started)))
    assert 1 < len(results) < 900
    assert max(started.values()) < deadline + 0.002  # between looking at the clock and noting the time
    started.clear()
    assert list(Workers(count).map(work, range(9), time.perf_counter() - 1)) == [0]
    assert list(started) == [0]


def test_ctrl_c_loses_nothing_that_had_begun(monkeypatch):
    """Raised while the third result is waited for."""
    workers, work = Workers(2), Watched(0.002)
    results = workers.map(work, range(100))
    assert [next(results), next(results)] == [0, 2]
    real, calls = Future.result, []

    def interrupted(future, timeout=None):
        calls.append(future)
        if len(calls) == 1:
            while not (future.running() or future.done()):
                time.sleep(0.0001)
            raise KeyboardInterrupt
        return real(future, timeout)

    monkeypatch.setattr(Future, "result", interrupted)
    rest = []
    with pytest.raises(KeyboardInterrupt):
        rest.extend(iter(results.__next__, None))
    assert work.at_once == 0
    assert [0, 2, *rest] == [2 * number for number in sorted(work.begun)]
    assert 3 <= len(work.begun) <= 6


@pytest.mark.parametrize("count", [1, 3])
def test_whoever_stops_asking_waits_for_what_is_under_way(count):
    work = Watched(0.002)
    results = Workers(count).map(work, range(100))
    assert [next(results), next(results)] == [0, 2]
    results.close()
    begun = list(work.begun)
    assert work.at_once == 0
    time.sleep(0.02)
    assert work.begun == begun
    assert len(begun) <= 2 + 2 * count


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
    results = workers.map(lambda number: number, range(6), time.perf_counter() - 1)
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
