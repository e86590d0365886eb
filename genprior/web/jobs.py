"""Queue of jobs: one runs at a time, in a thread; the others wait in order."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Progress = Callable[[int, int], None]


class QueueFull(Exception):
    """Too many jobs wait."""


class Stopped(Exception):
    """The job was stopped."""


class Job:
    """A job, which can be stopped.

    Arguments:
        work: The job; it calls its argument with (steps done, total) after each step.
    """

    def __init__(self, work: Callable[[Progress], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self._stopping = threading.Event()
        self._first: tuple[float, int] | None = None
        self._progress = (0, 0)

    def run(self) -> Any:
        """Runs the job; raises `Stopped` as soon as it reports a step after `stop`."""
        if self._stopping.is_set():
            raise Stopped
        return self.work(self._update)

    def stop(self) -> None:
        """Stops the job after its current step, or removes it from the queue."""
        self._stopping.set()
        self.future.cancel()

    def _update(self, done: int, total: int) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._first = self._first or (time.monotonic(), done)
        self._progress = (done, total)

    def state(self) -> dict[str, Any]:
        """Returns steps done, their total, and seconds left (None if unknown), for the page."""
        done, total = self._progress
        left = None
        if self._first is not None and done > self._first[1]:
            started, offset = self._first
            left = round((time.monotonic() - started) / (done - offset) * (total - done), 1)
        return {"event": "progress", "done": done, "total": total, "seconds_left": left}


class JobQueue:
    """Queue of jobs, of which one runs at a time.

    Arguments:
        limit: Jobs that may run or wait.
    """

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="genprior-job")

    def submit(self, work: Callable[[Progress], Any]) -> Job:
        """Adds a job.

        Raises:
            QueueFull: `limit` jobs run or wait.
        """
        job = Job(work)
        with self._lock:
            if len(self._jobs) >= self.limit:
                raise QueueFull(f"{self.limit} jobs run or wait already: try again later")
            self._jobs.append(job)
        job.future = self._worker.submit(job.run)
        job.future.add_done_callback(lambda _: self._remove(job))
        return job

    def _remove(self, job: Job) -> None:
        with self._lock:
            self._jobs.remove(job)

    def ahead(self, job: Job) -> int:
        """Returns the number of jobs before this one; 0 if it runs or has ended."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    def close(self) -> None:
        """Stops all jobs."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()
        self._worker.shutdown(wait=False)
