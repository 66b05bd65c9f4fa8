"""Sharing the jobs of an experiment among processes.

A job is a part of an experiment that is simulated on nodes of its own with a seed of its
own, so that results do not depend on the number of processes.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager
from contextvars import ContextVar
from functools import cache
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.sharedctypes import Synchronized
from typing import Final, TypeAlias, TypeVar

from qnodeos.errors import ResultsNotWrittenError

Job = TypeVar("Job")
Result = TypeVar("Result")
_Done: TypeAlias = tuple[Result, list[ResultsNotWrittenError]]

_POLL_S: Final = 0.2

_finished_steps: Synchronized[int] | None = None
"""In a worker: counts steps over all workers."""

_unwritten: ContextVar[list[ResultsNotWrittenError] | None] = ContextVar("unwritten", default=None)
"""What the present job could not write beside its result."""


@cache
def freeze_imports() -> None:
    """Spare the garbage collector what has been imported, which lives as long as we do."""
    gc.collect()
    gc.freeze()


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job, Callable[[], None]], Result],
    workers: int,
    on_progress: Callable[[int], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> Generator[tuple[Job, Result]]:
    """Do all jobs, in several processes; yields each with its result as it is done.

    After Ctrl-C no more jobs are started; those that run are still finished and yielded,
    then KeyboardInterrupt goes on to the caller. Ctrl-C again discards those that run.

    Args:
        jobs: what is to be done, in the order in which it is begun; they can be pickled.
        work: does a job, and calls its second argument after every step, whatever that is
            (a circuit, say); it can be pickled.
        workers: processes; 1 runs everything here, where Ctrl-C loses the running job.
        on_progress: called with the number of steps done so far, now and then.
        on_interrupt: called when the first Ctrl-C is noticed.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C, and what was still wanted has been yielded; what
            could not be written is its cause.
        ResultsNotWrittenError: a job could not write something (`tolerate_unwritten`), and all
            results have been yielded.
    """
    unwritten: list[ResultsNotWrittenError] = []
    if workers <= 1:
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            on_progress(done)

        for job in jobs:
            result, problems = _done(work, job, count)
            unwritten += problems
            yield job, result
        if unwritten:
            raise unwritten[0]
        return
    with counted_interrupts() as interrupts:
        pool = _run_in_pool(jobs, work, workers, on_progress, on_interrupt, interrupts)
        with closing(pool):
            for job, (result, problems) in pool:
                unwritten += problems
                yield job, result
    if interrupts.count:
        raise KeyboardInterrupt from next(iter(unwritten), None)
    if unwritten:
        raise unwritten[0]


@contextmanager
def tolerate_unwritten() -> Iterator[None]:
    """In a job, around writing something beside its result.

    What cannot be written is told when all jobs are done, or raised at once outside of a job.
    """
    try:
        yield
    except ResultsNotWrittenError as error:
        problems = _unwritten.get()
        if problems is None:
            raise
        problems.append(error)


def _run_in_pool(
    jobs: Sequence[Job],
    work: Callable[[Job, Callable[[], None]], Result],
    workers: int,
    on_progress: Callable[[int], None],
    on_interrupt: Callable[[], None],
    interrupts: Interrupts,
) -> Generator[tuple[Job, _Done[Result]]]:
    context = get_context("spawn")
    counter = context.Value("q", 0)
    others = set(active_children())
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(counter,)
    )
    waiting = deque(jobs)
    running: dict[Future[_Done[Result]], Job] = {}
    stopping = finished = False
    try:
        while running or (waiting and not stopping):
            # The pool is given no more than it can run: what it has it cannot be told to leave.
            while waiting and not stopping and len(running) < workers:
                job = waiting.popleft()
                with _ignoring_interrupts():
                    running[pool.submit(_do, work, job)] = job
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            on_progress(counter.value)
            for future in done:
                yield running.pop(future), future.result()
            if interrupts.count > 1:
                return
            if interrupts.count and not stopping:
                stopping = True
                on_interrupt()
        finished = True
    finally:
        if not finished:
            # Nobody wants what they work on, and a job may take a minute.
            for process in set(active_children()) - others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


# --- in the workers ---------------------------------------------------------------------


def _start_worker(counter: Synchronized[int]) -> None:
    global _finished_steps  # noqa: PLW0603 (the initialiser has no other way in)
    _finished_steps = counter
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot say that there is nothing more to do."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _count_step() -> None:
    assert _finished_steps is not None
    with _finished_steps.get_lock():
        _finished_steps.value += 1


def _do(work: Callable[[Job, Callable[[], None]], Result], job: Job) -> _Done[Result]:
    return _done(work, job, _count_step)


def _done(
    work: Callable[[Job, Callable[[], None]], Result], job: Job, on_step: Callable[[], None]
) -> _Done[Result]:
    problems: list[ResultsNotWrittenError] = []
    token = _unwritten.set(problems)
    try:
        return work(job, on_step), problems
    finally:
        _unwritten.reset(token)


# --- Ctrl-C -----------------------------------------------------------------------------


class Interrupts:
    """How often Ctrl-C was pressed."""

    count = 0

    def add(self, *_: object) -> None:
        """One more; a handler of SIGINT."""
        self.count += 1


@contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Count Ctrl-C instead of raising: raised while a pool shuts down, it would hang for ever."""
    interrupts = Interrupts()
    with _handling_interrupts(interrupts.add):
        yield interrupts


def _ignoring_interrupts() -> AbstractContextManager[None]:
    """Start processes that leave Ctrl-C, which reaches the whole group, to their parent."""
    return _handling_interrupts(signal.SIG_IGN)


@contextmanager
def _handling_interrupts(handler: Callable[..., object] | signal.Handlers) -> Iterator[None]:
    # Only the main thread may, and only there would Ctrl-C be raised.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
