"""Whether an explicit method was held up by stability rather than by accuracy: looked at once, after a long solve.

Where that is so, the step that the controller wants is about the stability limit of the method over the fastest mode,
h |λ| of 2 to 6, that mode decays, and the state moves much more slowly than it. Where steps are short for accuracy
h |λ| is smaller, or the state moves as fast as its fastest mode. Rejections tell nothing: a fifth of the attempts on
stiff problems, as much on the Lorenz equations.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from neuralode.core.problem import Problem
from neuralode.core.record import Record
from neuralode.core.status import StiffnessWarning
from neuralode.engines.base import SolveConfig

MANY = 500  # attempts, from which on it is worth a look; the look costs a few dozen evaluations
FEW = 50  # the same of a solve that failed
TURNS = 15  # of the power iteration
LIMIT = 2.0  # h |λ| near the limit of stability
SLOW = 0.02  # |f| over |λ| |y| of a state that hardly notices its fastest mode

IMPLICIT = (
    "an implicit method takes it in few steps: method='kvaerno5' or 'kvaerno3', which adapt theirs, or 'radauIIA5' or "
    "'trbdf2' with a step_size"
)


def looks_stiff(problem: Problem, record: Record, config: SolveConfig, *, least: int = MANY) -> bool:
    """Whether the steps look as if stability had kept them short, on any clock that made so many attempts."""
    method, controller, attempts = config.method, config.controller, torch.as_tensor(record.attempts)
    if method.implicit or not (method.adaptive and controller.adaptive) or not bool((attempts >= least).any()):
        return False
    y, field = record.y, problem.field
    if not bool(y.isfinite().all()) or not y.numel():
        return False
    t = torch.as_tensor(record.t, dtype=torch.float64).to(device=y.device, dtype=field.time_dtype)
    try:
        with torch.no_grad():
            near, slope = field.linearised(t, y), field(t, y)
            fastest, decays = _fastest_mode(near, slope, problem.per_sample)
    except (RuntimeError, TypeError):
        return False  # an f without products with its Jacobian
    size, speed = (_norm(x, problem.per_sample) for x in (y, slope))
    h = torch.as_tensor(record.h, dtype=torch.float64).to(y.device)
    held = decays & (h * fastest >= LIMIT) & (speed <= SLOW * fastest * size)
    return bool((held & (attempts.to(y.device) >= least)).any())


def _fastest_mode(near: Any, guess: Tensor, per_sample: bool) -> tuple[Tensor, Tensor]:
    """|λ| of the fastest mode, clock by clock, and whether it is real and decays."""
    v = guess + 1e-3 * _norm(guess, per_sample, True) * torch.linspace(-1, 1, guess.numel()).to(guess).view_as(guess)
    least = torch.finfo(v.dtype).tiny
    last = rest = torch.zeros(())
    for _ in range(TURNS):
        v = v / _norm(v, per_sample, True).clamp_min(least)
        image = near.jvp(v)
        overlap = (v.conj() * image).real
        overlap = overlap.sum(1, keepdim=True) if per_sample else overlap.sum()
        rest = _norm(image - overlap * v, per_sample)
        v, last = image, overlap.reshape(-1) if per_sample else overlap
    fastest = _norm(v, per_sample)
    return fastest.double(), (last < 0) & (rest <= 0.1 * fastest)


def _norm(x: Tensor, per_sample: bool, keep: bool = False) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1, keepdim=keep) if per_sample else torch.linalg.vector_norm(x)


def warn_of_stiffness(problem: Problem, record: Record, config: SolveConfig) -> None:
    """Warn where a solve that arrived looks stiff; with the same words each time, so that one place warns once."""
    if looks_stiff(problem, record, config):
        warnings.warn(
            f"this solve looks stiff: the steps of the explicit method {config.method.name!r} were kept short by a "
            f"mode that has long decayed, not by accuracy; {IMPLICIT}. To silence this: "
            "warnings.simplefilter('ignore', neuralode.StiffnessWarning).",
            StiffnessWarning,
            stacklevel=3,
        )
