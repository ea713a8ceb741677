"""Reproduce Figure 4 of Chen et al.: continuous flows of M units against planar flows of K layers, fitted to energies.

A flow q is fitted to an unnormalized density p ∝ exp(−U), which can be evaluated but not sampled, by variational
inference: minimize KL(q‖p) = E_q[log q + U] + log Z. The normalizer Z is a sum over a grid, so the divergence itself is
reported [1]_. The energies U are those of [2]_.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   section 4.1.
.. [2] D. J. Rezende, S. Mohamed, "Variational Inference with Normalizing Flows", ICML 2015, table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from neuralode.reproduce.figure5 import SPAN
from neuralode.reproduce.finished_runs import is_finished, write_finished
from neuralode.reproduce.flow_plots import PIXELS, pixel_centres, plot_sizes
from neuralode.reproduce.process_pool import run_in_processes
from neuralode.training.plain_loop import AdamOptions, minimize
from neuralode.training.run import Run, write_csv

SIZES = (2, 8, 32)
KINDS = ("planar", "cnf")
WINDOW = (-5.0, 5.0, -5.0, 5.0)  # left, right, bottom, top of each image
BASE_DEVIATION = 2.0  # of the base distribution; the targets extend to about 4
TEST_SAMPLES, TEST_SEED = 20_000, 10_000
TRAIN_TOLERANCE, TEST_TOLERANCE = 1e-3, 1e-5

Row = dict[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True)
class EnergyConfig:
    """Settings of one training.

    Parameters
    ----------
    target : {"U1", "U2", "U3", "U4"}
        Name of the energy.
    kind : {"planar", "cnf"}
        Kind of flow.
    size : int
        Number of planar layers, or units of the field.
    steps : int, default=1000
        Steps of Adam.
    rate : float, default=2e-3
        Initial learning rate.
    batch : int, default=256
        Samples of the flow per step.
    seed : int, default=0
        Seed of the initial weights and of the samples.
    """

    target: str
    kind: str
    size: int
    steps: int = 1000
    rate: float = 2e-3
    batch: int = 256
    seed: int = 0


# Planar layers are cheaper and get more steps. At their learning rate the field of a continuous flow becomes steep: its
# solves are slow, and its loss oscillates.
DESCENTS: Mapping[str, AdamOptions] = {"cnf": AdamOptions(1000, 2e-3), "planar": AdamOptions(4000, 1e-2)}


def figure4(
    folder: Path = Path("runs/figure4"),
    *,
    log: Log = print,
    targets: Sequence[str] = ("U1", "U2", "U3"),
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    descents: Mapping[str, AdamOptions] = DESCENTS,
    processes: int | None = None,
) -> list[Row]:
    """Fit flows of each kind and size to each target, and compare their divergences.

    The trainings run in parallel processes of one thread each. A script that calls this function must do so below
    ``if __name__ == "__main__":``. Runs that are already finished in ``folder`` are not repeated.

    Parameters
    ----------
    folder : Path, default=Path("runs/figure4")
        Folder for the runs, ``figure4.csv`` and ``figure4.png``.
    log : callable, default=print
        Called with one line when a training finishes.
    targets : sequence of {"U1", "U2", "U3", "U4"}, default=("U1", "U2", "U3")
        One row of images each.
    sizes : sequence of int, default=(2, 8, 32)
        Numbers of planar layers and of units.
    seed : int, default=0
        Seed of the initial weights and of the samples.
    descents : mapping from kind to AdamOptions, default=DESCENTS
        Steps and learning rate of each kind of flow.
    processes : int, default=None
        Number of parallel processes. None uses every available core.

    Returns
    -------
    list of dict
        One row per training, with ``kl`` in nats and its standard error ``kl_error``.

    Raises
    ------
    ValueError
        If a target is unknown, or a folder holds a run with another config.
    """
    for target in targets:
        pick("target", target, table=ENERGIES, kind=())
    configs = [
        EnergyConfig(target, kind, size, steps=descents[kind].steps, rate=descents[kind].rate, seed=seed)
        for target in targets
        for kind in KINDS
        for size in sizes
    ]
    unfinished = [config for config in configs if not is_finished(_run_folder(folder, config), asdict(config))]
    unfinished.sort(key=_cost, reverse=True)  # the longest first, so that all processes finish together
    for config in run_in_processes(partial(_train, folder=folder), unfinished, processes):
        summary = Run(_run_folder(folder, config)).summary
        log(f"{config.target}, {config.kind} of {config.size}: KL {summary['kl']:.4f} nats, {summary['seconds']:.0f} s")
    rows = [_row(config, Run(_run_folder(folder, config)).summary) for config in configs]
    write_csv(folder / "figure4.csv", rows)
    _plot(folder, configs, rows)
    return rows


def log_target(target: str, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """Return the normalized log-density of an energy.

    Examples
    --------
    >>> x = torch.cartesian_prod(torch.linspace(-7, 7, 281), torch.linspace(-7, 7, 281))
    >>> round((log_target("U2", x).exp().sum() * 0.05**2).item(), 3)
    1.0
    """
    return -ENERGIES[target](x) - log_normalizer(target)


@cache
def log_normalizer(target: str) -> float:
    """Return log ∫ exp(−U), by a sum over a grid of spacing 0.02."""
    side = torch.linspace(-8, 8, 801, dtype=torch.float64)
    energies = ENERGIES[target](torch.cartesian_prod(side, side))
    return torch.logsumexp(-energies, 0).item() + 2 * math.log(0.02)


def build(config: EnergyConfig) -> CNF | PlanarFlow:
    """Return the untrained flow of a config."""
    base = StandardNormal(2, BASE_DEVIATION)
    if config.kind == "planar":
        return PlanarFlow(2, config.size, base)
    field = HyperPlanarField(2, config.size)
    return CNF(field, base, (0.0, SPAN), rtol=TRAIN_TOLERANCE, atol=TRAIN_TOLERANCE, gradient="direct")


def load(folder: Path, config: EnergyConfig) -> CNF | PlanarFlow:
    """Return the trained flow of a finished run."""
    flow = build(config)
    Run.open(folder).read_weights(flow)
    if isinstance(flow, CNF):
        flow.rtol = flow.atol = TEST_TOLERANCE
    return flow.eval()


def divergence(flow: CNF | PlanarFlow, target: str) -> tuple[float, float]:
    """Return a Monte Carlo estimate of KL(q‖p) in nats, and its standard error."""
    flow = flow.double()
    if isinstance(flow, CNF):
        flow.rtol = flow.atol = TEST_TOLERANCE
    with torch.no_grad():
        x, log_q = flow.sample_with_log_prob(TEST_SAMPLES, generator=torch.Generator().manual_seed(TEST_SEED))
        log_ratio = log_q - log_target(target, x)
    return log_ratio.mean().item(), log_ratio.std().item() / math.sqrt(TEST_SAMPLES)


def _ring(x: Tensor) -> Tensor:
    bumps = torch.stack([-((x[..., 0] - centre) / 0.6).square() / 2 for centre in (-2.0, 2.0)])
    return ((x.norm(dim=-1) - 2) / 0.4).square() / 2 - bumps.logsumexp(0)


def _wave(x: Tensor) -> Tensor:
    return ((x[..., 1] - _sine(x)) / 0.4).square() / 2 + _wall(x)


def _split_wave(x: Tensor) -> Tensor:
    offset = x[..., 1] - _sine(x)
    dip = 3 * torch.exp(-((x[..., 0] - 1) / 0.6).square() / 2)
    return -_log_mixture(offset / 0.35, (offset + dip) / 0.35) + _wall(x)


def _forked_wave(x: Tensor) -> Tensor:
    offset = x[..., 1] - _sine(x)
    step = 3 * torch.sigmoid((x[..., 0] - 1) / 0.3)
    return -_log_mixture(offset / 0.4, (offset + step) / 0.35) + _wall(x)


def _sine(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * x[..., 0] / 4)


def _log_mixture(a: Tensor, b: Tensor) -> Tensor:
    return torch.logaddexp(-a.square() / 2, -b.square() / 2)


def _wall(x: Tensor) -> Tensor:
    # The published waves extend to infinity and cannot be normalized: let them decay beyond |x₁| = 4.
    return (F.relu(x[..., 0].abs() - 4) / 0.4).square() / 2


ENERGIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "U1": _ring,
    "U2": _wave,
    "U3": _split_wave,
    "U4": _forked_wave,
}


def _train(config: EnergyConfig, folder: Path) -> None:
    torch.manual_seed(config.seed)
    flow = build(config)
    generator = torch.Generator().manual_seed(config.seed)

    def loss(remaining: float) -> Tensor:
        x, log_q = flow.sample_with_log_prob(config.batch, generator=generator)
        # Anneal the energy as in [2]: with the full energy from the start, q collapses onto one mode.
        annealing = min(1.0, 0.01 + 3 * (1 - remaining))
        return (log_q - annealing * log_target(config.target, x)).mean()

    seconds = minimize(flow, loss, AdamOptions(config.steps, config.rate))
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    weights = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    kl, error = divergence(flow, config.target)
    flow.float().load_state_dict(weights)  # undo the conversion to double precision
    summary = {"kl": kl, "kl_error": error, "parameters": parameters, "seconds": seconds}
    write_finished(_run_folder(folder, config), flow, config=asdict(config), summary=summary)


def _plot(folder: Path, configs: Sequence[EnergyConfig], rows: Sequence[Row]) -> None:
    losses: dict[tuple[str, str], dict[int, float]] = {}
    for config, row in zip(configs, rows, strict=True):
        losses.setdefault((config.target, config.kind), {})[config.size] = row["kl"]
    targets = dict.fromkeys(config.target for config in configs)
    plot_sizes(
        {target: _density(partial(log_target, target)) for target in targets},
        {
            (config.target, config.kind, config.size): _density(load(_run_folder(folder, config), config).log_prob)
            for config in configs
        },
        losses=losses,
        window=WINDOW,
        path=folder / "figure4.png",
    )


def _density(log_prob: Callable[[Tensor], Tensor]) -> Float[Tensor, "rows columns"]:
    with torch.no_grad():
        return log_prob(pixel_centres(WINDOW, PIXELS)).exp().reshape(PIXELS, PIXELS)


def _cost(config: EnergyConfig) -> tuple[bool, int]:
    return config.kind == "cnf", config.size


def _run_folder(folder: Path, config: EnergyConfig) -> Path:
    return folder / f"{config.target}-{config.kind}-{config.size}-{config.seed}"


def _row(config: EnergyConfig, summary: Mapping[str, float]) -> Row:
    return {
        "target": config.target,
        "kind": config.kind,
        "size": config.size,
        "kl": round(summary["kl"], 4),
        "kl_error": round(summary["kl_error"], 4),
        "parameters": summary["parameters"],
        "seconds": round(summary["seconds"], 1),
    }
