"""Queue of jobs."""

import threading

import pytest
from webpage import until

from genprior.web.jobs import JobQueue, QueueFull, Stopped


def test_jobs_run_one_at_a_time_in_order() -> None:
    queue, order, lock = JobQueue(limit=20), [], threading.Lock()

    def work(k):
        def body(update):
            assert lock.acquire(blocking=False)
            order.append(k)
            lock.release()
            return k

        return body

    jobs = [queue.submit(work(k)) for k in range(20)]
    assert [job.future.result(10) for job in jobs] == order == list(range(20))
    queue.close()


def test_a_job_stops_at_its_next_step_and_a_waiting_one_at_once() -> None:
    queue, step, steps = JobQueue(limit=3), threading.Event(), []

    def endless(update):
        while True:
            assert step.wait(10)
            step.clear()
            steps.append(len(steps))
            update(len(steps), 100)

    running, waiting, last = (queue.submit(endless) for _ in range(3))
    with pytest.raises(QueueFull, match="3 jobs run or wait already"):
        queue.submit(endless)
    assert [queue.ahead(job) for job in (running, waiting, last)] == [0, 1, 2]
    waiting.stop()
    assert waiting.future.cancelled()
    until(lambda: queue.ahead(last) == 1)
    step.set()
    until(lambda: running.state()["done"] == 1)
    assert running.state()["total"] == 100 and running.state()["seconds_left"] is None
    running.stop()
    step.set()
    with pytest.raises(Stopped):
        running.future.result(10)
    assert len(steps) == 2
    queue.close()  # stops the last one
    step.set()
    with pytest.raises(Stopped):
        last.future.result(10)


def test_the_time_left_is_the_time_per_step_times_the_steps_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("genprior.web.jobs.time.monotonic", lambda: now[0])
    queue, states = JobQueue(), []

    def work(update):
        for done in (1, 2, 4):
            update(done, 10)
            states.append(job.state()["seconds_left"])
            now[0] += 3.0

    gate = threading.Event()
    job = queue.submit(lambda update: (gate.wait(10), work(update)))
    gate.set()
    job.future.result(10)
    assert states == [None, 24.0, 12.0]  # 3 s for a step, 8 left; then 6 s for 3 steps, 6 left
    queue.close()
