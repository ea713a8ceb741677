"""Run independent jobs in parallel processes, each limited to one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

Job = TypeVar("Job")


def run_in_processes(
    function: Callable[[Job], None], jobs: Sequence[Job], processes: int | None = None
) -> Iterator[Job]:
    """Call a function on each job in parallel, and yield each job when it is finished.

    Parameters
    ----------
    function : callable
        A module-level function of one job. Function and jobs must be picklable.
    jobs : sequence
        The jobs. Put the longest first, so that all processes finish at about the same time.
    processes : int, default=None
        Number of processes. None uses every available core. With 1, the jobs run in the current process.

    Yields
    ------
    job
        In order of completion.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, which also reaches the worker processes. Jobs that have not started are cancelled.
    """
    if not jobs:
        return
    workers = min(len(jobs), processes or available_cores())
    if workers == 1:
        for job in jobs:
            function(job)
            yield job
        return
    # Spawn: a forked child inherits locks that are held by threads it does not have.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        job_of = {pool.submit(function, job): job for job in jobs}
        try:
            for future in as_completed(job_of):
                future.result()
                yield job_of[future]
        finally:
            pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Return the number of cores this process may use, or of all cores where the system has no such limit.

    Examples
    --------
    >>> available_cores() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _use_one_thread() -> None:
    torch.set_num_threads(1)
