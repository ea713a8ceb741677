"""Checks of arguments that depend on each other."""

from __future__ import annotations

from typing import Any

from neuralode.core.registry import pick
from neuralode.engines.base import SolveConfig
from neuralode.methods.base import Method


def check_max_steps(max_steps: Any) -> int:
    """Refuse what is not a positive whole number."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps={max_steps!r}; wanted a whole number of at least 1.")
    return max_steps


def check_save(save: Any) -> Any:
    """Refuse what is neither None, "steps" nor a function."""
    if save is not None and not callable(save):
        pick("save", save, {"steps": None}, ())
    return save


def check_on_failure(on_failure: Any) -> None:
    """Refuse what is neither "raise" nor "return"."""
    pick("on_failure", on_failure, {"raise": None, "return": None}, ())


def check_together(config: SolveConfig, *, per_sample: bool, step_t: Any, jump_t: Any) -> None:
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
    """Refuse per-row discontinuities with a method that starts anew at them: rows reach them at different steps."""
    if not method.memoryless:
        raise ValueError(
            f"{jumps} with per_sample=True and method {method.name!r}, which begins anew at a jump: rows meet it at "
            "different steps. Wanted a one-step method, or per_sample=False."
        )
