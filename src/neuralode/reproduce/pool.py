"""Jobs side by side, each with one thread in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

Job = TypeVar("Job")


def side_by_side(work: Callable[[Job], None], jobs: Sequence[Job], processes: int | None = None) -> Iterator[Job]:
    """Do the work for each of the jobs, and yield each as it is finished.

    Parameters
    ----------
    work : callable
        A function of a module, called with a job; both must be picklable.
    jobs : sequence
        The longest first, so that processes end together.
    processes : int, optional
        At once; as many as there are cores unless given. With 1 there is no other process: the work is done here.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, which the processes get too; jobs that have not begun are not begun.
    """
    if not jobs:
        return
    workers = min(len(jobs), processes or cores())
    if workers == 1:
        for job in jobs:
            work(job)
            yield job
        return
    # spawn: a forked child would inherit the locks of threads that it does not have
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        going = {pool.submit(work, job): job for job in jobs}
        try:
            for done in as_completed(going):
                done.result()
                yield going[done]
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Those that this process may use, where the system tells; else all that there are.

    Examples
    --------
    >>> cores() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _one_thread() -> None:
    torch.set_num_threads(1)
