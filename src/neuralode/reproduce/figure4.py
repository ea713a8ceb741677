"""Figure 4 of Chen et al.: continuous flows of M units against planar flows of K layers, fitted to energies.

A flow q is fitted to a density p ∝ exp(−U) that can be evaluated but not drawn from, by what variational inference
minimises: KL(q‖p) = E_q[log q + U] + log Z. The normaliser Z is found by a sum over a grid, so that what is told is the
divergence itself [1]_; the energies are those of [2]_.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   section 4.1.
.. [2] D. J. Rezende, S. Mohamed, "Variational Inference with Normalizing Flows", ICML 2015, table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from neuralode.core.registry import pick
from neuralode.nn import CNF
from neuralode.nn.flows import HyperPlanarField, PlanarFlow, StandardNormal
from neuralode.reproduce.flows import SPAN, done, keep
from neuralode.reproduce.flows_plots import PIXELS, pixel_centres, plot_widths
from neuralode.reproduce.pool import side_by_side
from neuralode.training.plain_loop import Descent, descend
from neuralode.training.run import Run, write_csv

SIZES = (2, 8, 32)
KINDS = ("planar", "cnf")
WINDOW = (-5.0, 5.0, -5.0, 5.0)  # of the pictures
DEVIATION = 2.0  # of where flows start: the targets reach out to 4
JUDGED, TEST_SEED = 20_000, 10_000  # samples
TRAINED_AT, JUDGED_AT = 1e-3, 1e-5  # tolerances of the solves

Row = dict[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Fit:
    """One training: the energy, the kind of flow and its size; steps of Adam, learning rate, samples a step."""

    target: str
    kind: str
    size: int
    steps: int = 1000
    rate: float = 2e-3
    batch: int = 256
    seed: int = 0


# By kind: planar layers are cheaper, and have more steps. At their learning rate the field of a continuous flow grows
# sharp, hence slow to solve, and the loss goes up and down.
DESCENTS: Mapping[str, Descent] = {"cnf": Descent(1000, 2e-3), "planar": Descent(4000, 1e-2)}


def figure4(
    folder: Path = Path("runs/figure4"),
    tell: Tell = print,
    *,
    targets: Sequence[str] = ("U1", "U2", "U3"),
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    descents: Mapping[str, Descent] = DESCENTS,
    processes: int | None = None,
) -> list[Row]:
    """Fit flows of each kind and size to each target, and set their divergences from it beside each other.

    The trainings run side by side, one thread each, in processes of their own: a script that calls this does so below
    ``if __name__ == "__main__":``. A training that is finished in ``folder`` is not done again.

    Parameters
    ----------
    folder : Path
        Where the runs go, and ``figure4.csv`` and ``figure4.png``.
    tell : callable
        Called with a sentence as each training ends.
    targets : sequence of {"U1", "U2", "U3", "U4"}
        A row of pictures each.
    sizes : sequence of int
        Planar layers of one, units of the other.
    seed : int
        Of first weights and samples.
    descents : mapping from kind to Descent
        How long each is trained, and at what rate.
    processes : int, optional
        Side by side; as many as there are cores unless given.

    Returns
    -------
    list of dict
        A row a training, with ``kl`` in nats and its standard error.
    """
    for target in targets:
        pick("target", target, ENERGIES, ())
    fits = [
        Fit(target, kind, size, descents[kind].steps, descents[kind].rate, seed=seed)
        for target in targets
        for kind in KINDS
        for size in sizes
    ]
    left = [fit for fit in fits if not done(_place(folder, fit), fit)]
    for fit in side_by_side(partial(_train, folder=folder), sorted(left, key=_work, reverse=True), processes):
        summary = Run(_place(folder, fit)).summary
        tell(f"{fit.target}, {fit.kind} of {fit.size}: KL {summary['kl']:.4f} nats, {summary['seconds']:.0f} s")
    rows = [_row(fit, Run(_place(folder, fit)).summary) for fit in fits]
    write_csv(folder / "figure4.csv", rows)
    losses: dict[tuple[str, str], dict[int, float]] = {}
    for fit, row in zip(fits, rows, strict=True):
        losses.setdefault((fit.target, fit.kind), {})[fit.size] = row["kl"]
    plot_widths(
        {target: _density(lambda x, target=target: log_target(target, x)) for target in targets},
        {(fit.target, fit.kind, fit.size): _density(load(_place(folder, fit), fit).log_prob) for fit in fits},
        losses,
        WINDOW,
        folder / "figure4.png",
    )
    return rows


def log_target(target: str, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """The log-density that belongs to an energy.

    Examples
    --------
    >>> x = torch.cartesian_prod(torch.linspace(-7, 7, 281), torch.linspace(-7, 7, 281))
    >>> round((log_target("U2", x).exp().sum() * 0.05**2).item(), 3)
    1.0
    """
    return -ENERGIES[target](x) - log_normaliser(target)


@cache
def log_normaliser(target: str) -> float:
    """Log ∫ exp(−U), by a sum over a grid of 0.02."""
    side = torch.linspace(-8, 8, 801, dtype=torch.float64)
    energies = ENERGIES[target](torch.cartesian_prod(side, side))
    return torch.logsumexp(-energies, 0).item() + 2 * math.log(0.02)


def build(fit: Fit) -> CNF | PlanarFlow:
    """The flow of a training, as it begins."""
    base = StandardNormal(2, DEVIATION)
    if fit.kind == "planar":
        return PlanarFlow(2, fit.size, base)
    field = HyperPlanarField(2, fit.size)
    return CNF(field, base, (0.0, SPAN), rtol=TRAINED_AT, atol=TRAINED_AT, gradient="direct")


def load(place: Path, fit: Fit) -> CNF | PlanarFlow:
    """The trained flow of a finished training."""
    flow = build(fit)
    Run.open(place).read_weights(flow)
    if isinstance(flow, CNF):
        flow.rtol = flow.atol = JUDGED_AT
    return flow.eval()


def divergence(flow: CNF | PlanarFlow, target: str) -> tuple[float, float]:
    """KL(q‖p) in nats, by samples of q, and the standard error of that."""
    flow = flow.double()
    if isinstance(flow, CNF):
        flow.rtol = flow.atol = JUDGED_AT
    with torch.no_grad():
        x, log_q = flow.sample_with_log_prob(JUDGED, generator=torch.Generator().manual_seed(TEST_SEED))
        over = log_q - log_target(target, x)
    return over.mean().item(), over.std().item() / math.sqrt(JUDGED)


def _ring(x: Tensor) -> Tensor:
    bumps = torch.stack([-((x[..., 0] - place) / 0.6).square() / 2 for place in (-2.0, 2.0)])
    return ((x.norm(dim=-1) - 2) / 0.4).square() / 2 - bumps.logsumexp(0)


def _wave(x: Tensor) -> Tensor:
    return ((x[..., 1] - _sine(x)) / 0.4).square() / 2 + _wall(x)


def _split_wave(x: Tensor) -> Tensor:
    off = x[..., 1] - _sine(x)
    dip = 3 * torch.exp(-((x[..., 0] - 1) / 0.6).square() / 2)
    return -_either(off / 0.35, (off + dip) / 0.35) + _wall(x)


def _forked_wave(x: Tensor) -> Tensor:
    off = x[..., 1] - _sine(x)
    step = 3 * torch.sigmoid((x[..., 0] - 1) / 0.3)
    return -_either(off / 0.4, (off + step) / 0.35) + _wall(x)


def _sine(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * x[..., 0] / 4)


def _either(a: Tensor, b: Tensor) -> Tensor:
    return torch.logaddexp(-a.square() / 2, -b.square() / 2)


def _wall(x: Tensor) -> Tensor:
    # as published, the waves go on for ever and have no normaliser: here they fade out beyond |x₁| = 4
    return (F.relu(x[..., 0].abs() - 4) / 0.4).square() / 2


ENERGIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "U1": _ring,
    "U2": _wave,
    "U3": _split_wave,
    "U4": _forked_wave,
}


def _train(fit: Fit, folder: Path) -> None:
    torch.manual_seed(fit.seed)
    flow = build(fit)
    drawn = torch.Generator().manual_seed(fit.seed)

    def loss(left: float) -> Tensor:
        x, log_q = flow.sample_with_log_prob(fit.batch, generator=drawn)
        # warmed up, as in the paper of the energies: with all of the energy at once q settles in one of its valleys
        warmth = min(1.0, 0.01 + 3 * (1 - left))
        return (log_q - warmth * log_target(fit.target, x)).mean()

    seconds = descend(flow, loss, Descent(fit.steps, fit.rate))
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    weights = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    kl, error = divergence(flow, fit.target)
    flow.float().load_state_dict(weights)
    summary = {"kl": kl, "kl_error": error, "parameters": parameters, "seconds": seconds}
    keep(_place(folder, fit), fit, flow, summary)


def _density(log_prob: Callable[[Tensor], Tensor]) -> Float[Tensor, "rows columns"]:
    with torch.no_grad():
        return log_prob(pixel_centres(WINDOW, PIXELS)).exp().reshape(PIXELS, PIXELS)


def _work(fit: Fit) -> tuple[bool, int]:
    return fit.kind == "cnf", fit.size


def _place(folder: Path, fit: Fit) -> Path:
    return folder / f"{fit.target}-{fit.kind}-{fit.size}-{fit.seed}"


def _row(fit: Fit, summary: Mapping[str, float]) -> Row:
    return {
        "target": fit.target,
        "kind": fit.kind,
        "size": fit.size,
        "kl": round(summary["kl"], 4),
        "kl_error": round(summary["kl_error"], 4),
        "parameters": summary["parameters"],
        "seconds": round(summary["seconds"], 1),
    }
