"""Detect after a long solve whether stability, rather than accuracy, limited the steps of an explicit method.

If so, the step size is about the stability limit of the method for the fastest mode, h |λ| of 2 to 6; that mode decays;
and the state changes much more slowly than it. If accuracy limits the steps, h |λ| is smaller, or the state changes as
fast as its fastest mode. The share of rejected attempts does not distinguish the two: it is a fifth on stiff problems,
and as large on the Lorenz equations.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuralode.core.clock import some
from neuralode.core.jacobians import Linearised
from neuralode.core.problem import Problem
from neuralode.core.record import Record
from neuralode.core.status import StiffnessWarning
from neuralode.engines.base import SolveConfig

MIN_ATTEMPTS = 500  # attempts from which on the test pays: it costs a few dozen evaluations of f
MIN_ATTEMPTS_FAILED = 50  # the same for a solve that failed
POWER_ITERATIONS = 15
STABILITY_LIMIT = 2.0  # smallest h |λ| that counts as the stability limit
SLOW_STATE = 0.02  # largest |f| / (|λ| |y|) of a state that has left its fastest mode behind
EIGENVECTOR_RESIDUAL = 0.1  # largest relative residual of a real eigenvector

IMPLICIT = (
    "an implicit method takes few steps: method='kvaerno5' or 'kvaerno3' with adaptive steps, or 'radauIIA5' or "
    "'trbdf2' with a step_size"
)


def looks_stiff(problem: Problem, record: Record, config: SolveConfig, *, least: int = MIN_ATTEMPTS) -> bool:
    """Return whether stability seems to have limited the steps, on any clock with ``least`` attempts or more."""
    method, controller = config.method, config.controller
    if method.implicit or not (method.adaptive and controller.adaptive) or not some(record.attempts >= least):
        return False
    attempts = torch.as_tensor(record.attempts)
    y, field = record.y, problem.field
    if not bool(y.isfinite().all()) or not y.numel():
        return False
    t = torch.as_tensor(record.t, dtype=torch.float64).to(device=y.device, dtype=field.time_dtype)
    try:
        with torch.no_grad():
            slope = field(t, y)
            fastest, decays = _fastest_mode(field.linearised(t, y), slope, problem.per_sample)
    except (RuntimeError, TypeError):
        return False  # f has no products with its Jacobian
    size, speed = (_norm(x, problem.per_sample) for x in (y, slope))
    h = torch.as_tensor(record.h, dtype=torch.float64).to(y.device)
    limited = decays & (h * fastest >= STABILITY_LIMIT) & (speed <= SLOW_STATE * fastest * size)
    return bool((limited & (attempts.to(y.device) >= least)).any())


def warn_of_stiffness(problem: Problem, record: Record, config: SolveConfig) -> None:
    """Warn if a successful solve looks stiff; always with the same text, so that Python shows it once per caller."""
    if looks_stiff(problem, record, config):
        warnings.warn(
            "this solve looks stiff: stability rather than accuracy limited the steps of the explicit method "
            f"{config.method.name!r}, through a mode that has long decayed; {IMPLICIT}. To silence this: "
            "warnings.simplefilter('ignore', neuralode.StiffnessWarning).",
            StiffnessWarning,
            stacklevel=3,
        )


def _fastest_mode(
    linearised: Linearised, guess: Tensor, per_sample: bool
) -> tuple[Float[Tensor, " clocks"], Bool[Tensor, " clocks"]]:
    """Return |λ| of the fastest mode of each clock by power iteration, and whether λ is real and negative."""
    # Add a part of every mode, in case the guess has none of the fastest.
    ramp = torch.linspace(-1, 1, guess.numel()).to(guess).view_as(guess)
    v = guess + 1e-3 * _norm(guess, per_sample, keepdim=True) * ramp
    tiny = torch.finfo(v.dtype).tiny
    eigenvalue = residual = torch.zeros(())
    for _ in range(POWER_ITERATIONS):
        v = v / _norm(v, per_sample, keepdim=True).clamp_min(tiny)
        image = linearised.jvp(v)
        overlap = (v.conj() * image).real
        overlap = overlap.sum(1, keepdim=True) if per_sample else overlap.sum()
        residual = _norm(image - overlap * v, per_sample)
        v, eigenvalue = image, overlap.reshape(-1) if per_sample else overlap
    fastest = _norm(v, per_sample)
    return fastest.double(), (eigenvalue < 0) & (residual <= EIGENVECTOR_RESIDUAL * fastest)


def _norm(x: Tensor, per_sample: bool, *, keepdim: bool = False) -> Tensor:
    """Return the norm of each row, or of all rows together."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=keepdim) if per_sample else torch.linalg.vector_norm(x)
