"""Jobs shared among processes: results, progress, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import active_children
from os import getpid
from pathlib import Path
from textwrap import dedent
from threading import Event

import pytest

from qnodeos.errors import ResultsNotWrittenError
from qnodeos.experiments.pool import run_jobs, tolerate_unwritten

JOBS = tuple(range(5))
STEPS = 3


def work(factor: int, job: int, on_step: Callable[[], None]) -> tuple[int, int]:
    for _ in range(STEPS):
        on_step()
    return factor * job, getpid()


def wait_long(directory: Path, job: int, on_step: Callable[[], None]) -> None:
    on_step()
    Event().wait(60)
    (directory / str(job)).touch()


def tell_and_wait(job: int, on_step: Callable[[], None]) -> None:
    print(job, flush=True)
    Event().wait(60)


def fail(job: int, on_step: Callable[[], None]) -> None:
    raise ValueError(f"job {job}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_and_its_steps_are_counted(workers):
    seen: list[int] = []
    done = dict(run_jobs(JOBS, partial(work, 7), workers, seen.append))
    assert {job: result for job, (result, _) in done.items()} == {job: 7 * job for job in JOBS}
    assert seen[-1] <= len(JOBS) * STEPS
    assert seen == sorted(seen)
    processes = {process for _, process in done.values()}
    if workers == 1:
        assert processes == {getpid()}
        assert seen == list(range(1, len(JOBS) * STEPS + 1))
    else:
        assert getpid() not in processes
        assert seen[-1] > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_reaches_the_caller(workers):
    children = active_children()
    with pytest.raises(ValueError, match="job 0"):
        list(run_jobs(JOBS[:1], fail, workers, lambda _: None))
    assert active_children() == children


# --- Ctrl-C -----------------------------------------------------------------------------


def interrupted(presses_later: int) -> tuple[list[int], int]:
    """Jobs that are kept, with Ctrl-C when they have been started and so often after that."""
    kept, notices = [], 0

    def on_progress(_: int) -> None:
        if not notices:
            signal.raise_signal(signal.SIGINT)

    def on_interrupt() -> None:
        nonlocal notices
        notices += 1
        for _ in range(presses_later):
            signal.raise_signal(signal.SIGINT)

    children = active_children()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        for job, _ in run_jobs(JOBS, partial(work, 7), 2, on_progress, on_interrupt):
            kept.append(job)
    assert active_children() == children
    assert signal.getsignal(signal.SIGINT) is handler
    return kept, notices


def test_ctrl_c_lets_the_running_jobs_finish_and_starts_no_more():
    kept, notices = interrupted(presses_later=0)
    assert set(kept) == {0, 1}
    assert notices == 1


def test_ctrl_c_again_and_again_discards_the_running_jobs_and_ends():
    kept, notices = interrupted(presses_later=3)
    assert set(kept) <= {0, 1}
    assert notices == 1


def test_ctrl_c_again_ends_jobs_in_the_middle_of_their_work(tmp_path):
    def on_progress(started: int) -> None:
        if started == 2:
            signal.raise_signal(signal.SIGINT)

    def on_interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    jobs = run_jobs(JOBS, partial(wait_long, tmp_path), 2, on_progress, on_interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(jobs)
    assert not list(tmp_path.iterdir())


def test_workers_end_with_a_parent_that_is_killed():
    script = dedent(f"""
        from qnodeos.experiments.pool import run_jobs
        from {__name__} import tell_and_wait

        if __name__ == "__main__":
            list(run_jobs([0, 1], tell_and_wait, 2, lambda _: None))
    """)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        try:
            assert {parent.stdout.readline(), parent.stdout.readline()} == {"0\n", "1\n"}
        finally:
            parent.kill()
        # The workers have the other end of the pipe, too, so it ends when they have.
        assert parent.communicate(timeout=30)[0] == ""


def test_a_run_that_is_not_read_to_its_end_leaves_no_process_behind():
    children = active_children()
    jobs = run_jobs(JOBS, partial(work, 7), 2, lambda _: None)
    next(jobs)
    del jobs
    assert active_children() == children


# --- what cannot be written ---------------------------------------------------------------


def write_badly(job: int, on_step: Callable[[], None]) -> int:
    with tolerate_unwritten():
        if job == 1:
            raise ResultsNotWrittenError("no space")
    return job


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_cannot_write_is_told_when_all_are_done(workers):
    results: list[tuple[int, int]] = []
    with pytest.raises(ResultsNotWrittenError, match="no space"):
        results.extend(run_jobs(JOBS, write_badly, workers, lambda _: None))
    assert sorted(results) == [(job, job) for job in JOBS]


def test_outside_of_a_job_it_is_told_at_once():
    with pytest.raises(ResultsNotWrittenError, match="no space"):
        write_badly(1, lambda: None)
