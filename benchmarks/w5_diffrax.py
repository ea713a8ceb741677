"""W5 on diffrax, in JAX: the same weights, batch, method and tolerances.

Two reverse modes are measured: recursive checkpointing, with the best of several numbers of checkpoints, and the
continuous adjoint. Times exclude compilation. JAX runs on one thread, as PyTorch does.
"""

from __future__ import annotations

import importlib.util
import os
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Timing, interleaved
from neuralode.nn.flows import ConcatSquashField

CHECKPOINTS = (8, 16, 32, 64)


def available() -> bool:
    """Return whether diffrax is installed (``pip install 'neuralode[peers]'``)."""
    return importlib.util.find_spec("diffrax") is not None


def measure(net: ConcatSquashField, x: Tensor, *, tolerance: float, samples: int) -> list[tuple[str, Timing, Tensor]]:
    """Return name, time and gradient of each reverse mode; gradients are flattened like ``net.parameters()``."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import diffrax
    import jax
    import jax.numpy as jnp

    weights = {name: jnp.asarray(p.detach().cpu().numpy()) for name, p in net.named_parameters()}
    batch = jnp.asarray(x.cpu().numpy())
    basis = jnp.eye(batch.shape[1])

    def field(weights: dict, t: Any, y: Any) -> Any:
        gates = jax.nn.sigmoid(weights["gate.weight"][:, 0] * t + weights["gate.bias"])
        shifts, begin = weights["shift.weight"][:, 0] * t, 0
        for layer, width in enumerate(net.widths, start=1):
            units = slice(begin, begin + width)
            w, b = weights[f"linears.{layer - 1}.weight"], weights[f"linears.{layer - 1}.bias"]
            y = (y @ w.T + b) * gates[units] + shifts[units]
            y = y if layer == len(net.widths) else jnp.tanh(y)
            begin += width
        return y

    def rates(t: Any, state: Any, weights: dict) -> Any:
        along = lambda v: jax.jvp(lambda y: field(weights, t, y), (state[0],), (jnp.broadcast_to(v, batch.shape),))  # noqa: E731
        value, products = jax.vmap(along, out_axes=(None, 0))(basis)
        return value, jnp.einsum("kbk->b", products)[:, None]

    def loss(weights: dict, adjoint: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            diffrax.Dopri5(),
            t0=1.0,
            t1=0.0,
            dt0=None,
            y0=(batch, jnp.zeros((len(batch), 1))),
            args=weights,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=adjoint,
            max_steps=256,
        )
        z, log_det = (leaf[-1] for leaf in solution.ys)
        return -(jax.scipy.stats.norm.logpdf(z).sum(1) + log_det[:, 0]).mean()

    adjoints = {f"checkpoints={n}": diffrax.RecursiveCheckpointAdjoint(checkpoints=n) for n in CHECKPOINTS}
    adjoints["backsolve"] = diffrax.BacksolveAdjoint()
    steps = {name: jax.jit(partial(jax.grad(loss), adjoint=adjoint)) for name, adjoint in adjoints.items()}
    gradients = {name: step(weights) for name, step in steps.items()}
    runs = {name: (lambda step=step: jax.block_until_ready(step(weights))) for name, step in steps.items()}
    timings = interleaved(runs, samples, torch.device("cpu"))
    best = min((f"checkpoints={n}" for n in CHECKPOINTS), key=lambda name: timings[name].median)
    names = list(weights)

    def flat(gradient: dict) -> Tensor:
        return torch.cat([torch.tensor(jax.device_get(gradient[name])).reshape(-1) for name in names])

    return [(f"diffrax, {name}", timings[name], flat(gradients[name])) for name in (best, "backsolve")]
