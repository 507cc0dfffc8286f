"""The pool hands out few tasks at a time, replaces workers that are lost, and gives up what loses them again and again."""

from __future__ import annotations

import threading
import time

import pytest
from thread_workers import Threads

from kcompiler.pool import pool as pools
from kcompiler.pool.pool import LOSSES, LOSSES_IN_A_ROW, QUEUED, Pool
from kcompiler.pool.worker import Lost
from kcompiler.runtime.errors import WorkersLost


class Fake(Threads):
    """Workers that all do ``work``, and then or before raise what it raises."""

    def __init__(self, work, count=3, opens=lambda: None):
        super().__init__(count)
        self.work, self.opens = work, opens

    def __call__(self, stopping):
        self.opens()
        return lambda task, lost: self.work(task, lost, stopping)


def pool(backend, said=None):
    return Pool(backend, backend, (said if said is not None else []).append)


def test_each_task_is_done_once_and_few_wait():
    handed, waiting, results = [], [], []

    def tasks():
        for number in range(40):
            handed.append(number)
            yield number

    with pool(backend := Fake(lambda task, lost, stop: task * 2)) as workers:
        for finished in workers.map(tasks()):
            results.append(finished.result)
            waiting.append(len(handed) - len(results))
    assert sorted(results) == [2 * number for number in range(40)]
    assert max(waiting) <= QUEUED * backend.count
    assert len(backend.started) == 3
    assert all(worker.closed for worker in backend.started)


def test_workers_are_kept_from_one_round_to_the_next():
    with pool(backend := Fake(lambda task, lost, stop: task)) as workers:
        for _ in range(3):
            assert sorted(each.result for each in workers.map(range(1, 9))) == list(range(1, 9))
    assert len(backend.started) == 3
    assert [*pool(Fake(None)).map([])] == [], "no task, no worker"


def test_a_lost_worker_is_replaced_and_its_tasks_done_by_others():
    said = []

    def work(task, lost, stop):
        if task == 5 and lost < LOSSES - 1:
            raise Lost("killed")
        return task, lost

    with pool(backend := Fake(work), said) as workers:
        results = dict(each.result for each in workers.map(range(20)))
    assert results == {**dict.fromkeys(range(20), 0), 5: LOSSES - 1}, "what waited behind it is not to blame"
    assert len(backend.started) == 3 + LOSSES - 1
    assert said == ["a worker was lost (killed); another takes its place"] * (LOSSES - 1)


def test_a_task_that_loses_workers_again_and_again_is_given_up():
    def work(task, lost, stop):
        if task == 5:
            raise Lost("killed")
        return task

    with pool(Fake(work)) as workers:
        finished = list(workers.map(range(20)))
    (given_up,) = [each for each in finished if each.lost is not None]
    assert (given_up.task, given_up.result) == (5, None)
    assert "3 workers were lost over it; the last: killed" in given_up.lost
    assert len(finished) == 20


def test_workers_that_are_lost_without_a_task_done_end_it():
    def dies():
        raise Lost("out of memory")

    with pool(backend := Fake(None, count=2, opens=dies)) as workers, pytest.raises(WorkersLost, match="out of memory"):
        list(workers.map(range(20)))
    assert len(backend.started) <= 2 * (LOSSES_IN_A_ROW + 1)


def test_what_a_task_or_the_opening_raises_is_raised():
    def fails(*arguments):
        raise ValueError("no")

    for backend in (Fake(fails), Fake(None, opens=fails)):
        with pool(backend) as workers, pytest.raises(ValueError, match="no"):
            list(workers.map(range(20)))
        assert all(worker.closed for worker in backend.started)


def test_after_the_deadline_nothing_starts_but_the_first():
    with pool(Fake(lambda task, lost, stop: task)) as workers:
        assert [each.result for each in workers.map(range(1, 20), deadline=0.0)] == [1]


def test_on_an_interrupt_workers_are_asked_to_leave_off_and_what_they_have_is_kept():
    begun = threading.Semaphore(0)

    def work(task, lost, stop):
        begun.release()
        return task if task == 1 else (task, waited_for(stop))

    results = []

    def take(workers):
        for finished in workers.map(range(1, 20)):
            results.append(finished.result)
            if finished.result == 1:
                begun.acquire(timeout=10)
                begun.acquire(timeout=10)
                workers._done = interrupted

    with pool(backend := Fake(work, count=2)) as workers, pytest.raises(KeyboardInterrupt):
        take(workers)
    assert results[0] == 1
    assert (2, True) in results
    assert all(worker.closed for worker in backend.started)


def waited_for(condition):
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def interrupted():
    raise KeyboardInterrupt


def test_that_no_worker_has_a_place_is_said(monkeypatch):
    monkeypatch.setattr(pools, "PATIENCE", 0.05)
    place, said = threading.Event(), []

    def opens():
        assert place.wait(10)

    class Said(list):
        def append(self, text):
            super().append(text)
            place.set()

    said = Said()
    with pool(Fake(lambda task, lost, stop: task, opens=opens), said) as workers:
        assert len(list(workers.map(range(1, 5)))) == 4
    assert said[0] == "waiting for a place for the first of 3 workers"
