"""What every task does alike with its run: train into it, and say how that went."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn

from neuralode.training.fit import FitResult
from neuralode.training.history import History
from neuralode.training.run import Run


def check_rate(learning_rate: float) -> None:
    """Refuse, before anything is written, a rate by which nothing can be learned."""
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate={learning_rate!r}; wanted a number above 0.")


def into(
    run: Run, resume: bool, callbacks: Sequence[Callback], tell: Callable[[dict[str, float]], None] | None
) -> dict[str, Any]:
    """Keywords of `neuralode.training.fit.fit` for a training that is written into a run and gone on with from there.

    Parameters
    ----------
    run : Run
        Where its checkpoints and the figures of its epochs go.
    resume : bool
        Whether it goes on.
    callbacks : sequence of Callback
        Besides; Lightning's.
    tell : callable or None
        Called with the figures of each epoch; without, there is a progress bar.
    """
    return {
        "folder": run.checkpoints,
        "resume": resume,
        "callbacks": [History(run, tell), *callbacks],
        "progress_bar": tell is None,
        "belongs_to": run.digest,
    }


def course(run: Run, model: nn.Module, fitted: FitResult) -> dict[str, Any]:
    """How a training went, as every summary says it; seconds are those of all its epochs, cut off or not."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(run.metrics),
        "seconds": round(sum(row["seconds"] for row in run.metrics), 2),
        "interrupted": fitted.interrupted,
    }
