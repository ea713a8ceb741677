"""Checks of single arguments, and of arguments that exclude each other."""

from __future__ import annotations

from neuralode.core.registry import pick
from neuralode.core.times import Times
from neuralode.core.types import Save
from neuralode.engines.base import SolveConfig
from neuralode.methods.base import Method


def check_max_steps(max_steps: int) -> int:
    """Return a positive integer; refuse other values."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps={max_steps!r}; wanted a whole number of at least 1.")
    return max_steps


def check_save(save: Save) -> Save:
    """Return None, "steps" or a function; refuse other values."""
    if save is not None and not callable(save):
        pick("save", save, table={"steps": None}, kind=())
    return save


def check_on_failure(on_failure: str) -> None:
    """Refuse values other than "raise" and "return"."""
    pick("on_failure", on_failure, table={"raise": None, "return": None}, kind=())


def check_together(config: SolveConfig, *, per_sample: bool, step_t: Times | None, jump_t: Times | None) -> None:
    """Refuse arguments that exclude each other."""
    method = config.method
    if config.events and config.save == "steps":
        raise ValueError("events with save='steps'; wanted output times, or dense=True.")
    if jump_t is not None and per_sample:
        check_restarts(method, "jump_t")
    if method.one_call:
        given = {
            "per_sample=True": per_sample,
            "dense=True": config.dense,
            "save='steps'": config.save == "steps",
            "events": bool(config.events),
            "step_t": step_t is not None,
            "jump_t": jump_t is not None,
        }
        for name, present in given.items():
            if present:
                raise ValueError(f"{name} with method {method.name!r}, which keeps no steps; wanted another method.")


def check_restarts(method: Method, jumps: str) -> None:
    """Refuse per-row discontinuities with a method that restarts at them: rows reach them at different steps."""
    if not method.memoryless:
        raise ValueError(
            f"{jumps} with per_sample=True and method {method.name!r}, which begins anew at a jump: rows meet it at "
            "different steps. Wanted a one-step method, or per_sample=False."
        )
