"""What f is asked before a solve: whether it returns a slope, and whether each row depends on itself alone."""

from __future__ import annotations

from typing import Any

from neuralode.core.registry import pick


def check_choices(save: Any, on_failure: Any, max_steps: Any) -> None:
    """Refuse choices that are none."""
    if save is not None and not callable(save):
        pick("save", save, {"steps": None}, ())
    pick("on_failure", on_failure, {"raise": None, "return": None}, ())
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps={max_steps!r}; wanted a whole number of at least 1.")


def check_pairs(method: Any, per_sample: bool, dense: bool, save: Any, events: Any, step_t: Any, jump_t: Any) -> None:
    """Refuse what does not go together."""
    if events and save == "steps":
        raise ValueError("events with save='steps'; wanted output times, or dense=True.")
    if jump_t is not None and per_sample and not method.memoryless:
        raise ValueError(
            f"jump_t with per_sample=True and method {method.name!r}, which begins anew at a jump: rows meet it at "
            "different steps. Wanted a one-step method, or per_sample=False."
        )
    if method.one_call:
        asked = {"per_sample=True": per_sample, "dense=True": dense, "save='steps'": save == "steps"}
        asked |= {"events": bool(events), "step_t": step_t is not None, "jump_t": jump_t is not None}
        for name, given in asked.items():
            if given:
                raise ValueError(f"{name} with method {method.name!r}, which keeps no steps; wanted another method.")
