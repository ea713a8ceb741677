"""Section 4.1 of Chen et al. by maximum likelihood: a continuous flow of 64 hidden units against 64 planar layers.

The paper shows pictures; here what is lost to the true density is told in nats [1]_.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   figure 5.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.core.registry import pick
from neuralode.data.densities import find_density
from neuralode.nn import CNF
from neuralode.nn.flows import HyperPlanarField, PlanarFlow
from neuralode.reproduce.flows_plots import Shown, plot_models
from neuralode.reproduce.pool import side_by_side
from neuralode.training.plain_loop import Descent, descend
from neuralode.training.run import Run, versions, write_csv, write_json

HELD_OUT, TEST_SEED = 10_000, 10_000  # points that no model was shown, the same ones for all
# tolerances of the solves in training, of a model that is loaded, and where it is judged, in double precision
TRAINED_AT, LOADED_AT, JUDGED_AT = 1e-3, 1e-5, 1e-6
SPAN = 5.0  # of time: fields begin small, and learn faster where they have long to act

Row = dict[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Fit:
    """One training.

    Parameters
    ----------
    density : str
        Of `neuralode.data.densities`.
    model : {"cnf", "planar"}
        A continuous flow with the paper's field, or planar layers.
    width : int
        Units of the field's one hidden layer, or planar layers.
    seed : int
        Of the first weights and all points.
    steps, batch, rate
        Of Adam; points that are drawn anew for each; where the learning rate begins.
    """

    density: str
    model: str
    width: int = 64
    seed: int = 0
    steps: int = 2500
    batch: int = 512
    rate: float = 5e-3


# Planar layers are cheaper, and have more steps. Fields that part circles are sharper, and their steps take longer.
STEPS: Mapping[str, Mapping[str, int]] = {
    "moons": {"cnf": 2500, "planar": 6000},  # and for any other
    "circles": {"cnf": 1500, "planar": 6000},
}


def compare_flows(
    density: str,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | None = None,
    tell: Tell = print,
    *,
    recipes: Sequence[Fit] | None = None,
    processes: int | None = None,
) -> list[Row]:
    """Train each model for each seed, and set what they lose on held-out points beside each other.

    The trainings run side by side, one thread each, in processes of their own: a script that calls this does so below
    ``if __name__ == "__main__":``. A training that is finished in ``folder`` is not done again.

    Parameters
    ----------
    density : str
        "moons", "circles", or another of `neuralode.data.densities`.
    seeds : sequence of int
        One training of each model for each.
    folder : Path
        Where the runs go, and ``<density>.csv`` and ``.png``; ``runs/<density>`` unless given.
    tell : callable
        Called with a sentence as each training ends.
    recipes : sequence of Fit, optional
        What is trained, one row each, `recipes_for` the density unless given; density and seed are filled in. Each
        has a model or a width of its own.
    processes : int, optional
        Side by side; as many as there are cores unless given.

    Returns
    -------
    list of dict
        A row a model, means over seeds. ``nats`` is the mean of −log q over the held-out points, ``truth`` that of
        −log p, which differs from the entropy by the luck of the points, and ``gap`` what the one is above the other.
    """
    truth = find_density(density)
    recipes = recipes_for(truth.name) if recipes is None else recipes
    if not seeds or not recipes:
        raise ValueError(f"seeds={seeds!r} and recipes={recipes!r} ask for no training; wanted at least one of each.")
    names = [_name(recipe) for recipe in recipes]
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise ValueError(f"recipes has two {twice}, which would go into one folder; wanted others in another call.")
    folder = Path("runs") / truth.name if folder is None else folder
    jobs = [replace(recipe, density=truth.name, seed=seed) for recipe in recipes for seed in seeds]
    left = [job for job in jobs if not done(_place(folder, job), job)]
    for job in side_by_side(partial(_train, folder=folder), left, processes):
        tell(f"{_name(job)}, seed {job.seed}: {_figures(Run(_place(folder, job)).summary)}")
    runs = [{job.seed: Run(_place(folder, job)) for job in jobs if _name(job) == name} for name in names]
    rows = [_row(trained) for trained in runs]
    write_csv(folder / f"{truth.name}.csv", rows)
    first = {_name(job): load(_place(folder, job)) for job in jobs if job.seed == seeds[0]}
    plot_models(
        truth, {name: Shown.of(flow, truth.window) for name, flow in first.items()}, folder / f"{truth.name}.png"
    )
    return rows


def recipes_for(density: str) -> tuple[Fit, ...]:
    """What is trained of a density: the longest first, so that processes end together.

    Examples
    --------
    >>> [(fit.model, fit.steps) for fit in recipes_for("moons")]
    [('cnf', 2500), ('planar', 6000)]
    """
    return tuple(Fit(density, model, steps=steps) for model, steps in STEPS.get(density, STEPS["moons"]).items())


class Scaled(nn.Module):
    """A flow that sees points with mean 0 and deviation 1 along both axes: what any of the models is told of the data.

    Examples
    --------
    >>> flow = Scaled(PlanarFlow(2, 4), mean=torch.tensor([1.0, 2.0]), deviation=torch.tensor([2.0, 2.0]))
    >>> round(flow.log_prob(torch.tensor([1.0, 2.0])).item(), 4)  # -log(2 π) - 2 log 2
    -3.2242
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, flow: CNF | PlanarFlow, mean: Float[Tensor, "2"], deviation: Float[Tensor, "2"]) -> None:
        super().__init__()
        self.flow = flow
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def log_prob(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """The log-density, in the units of the data."""
        return self.flow.log_prob((x - self.mean) / self.deviation) - self.deviation.log().sum()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
        """Draw points."""
        return self.mean + self.deviation * self.flow.sample(n, generator=generator)


def build(fit: Fit) -> Scaled:
    """The model of a training, as it begins."""
    make = pick("model", fit.model, MODELS, ())
    seen = find_density(fit.density).sample(100_000, torch.Generator().manual_seed(TEST_SEED - 1))
    return Scaled(make(fit.width), seen.mean(0), seen.std(0))


def load(place: Path) -> Scaled:
    """The trained model of a finished training."""
    run = Run.open(place)
    config = {name: value for name, value in run.config.items() if name != "versions"}
    flow = build(Fit(**config))
    run.read_weights(flow)
    if isinstance(flow.flow, CNF):
        flow.flow.rtol = flow.flow.atol = LOADED_AT
    return flow.eval()


def judge(flow: Scaled, density: str) -> dict[str, float]:
    """What a model loses on the held-out points, solved and summed in double precision."""
    truth, flow = find_density(density), copy.deepcopy(flow).double()
    if isinstance(flow.flow, CNF):
        flow.flow.rtol = flow.flow.atol = JUDGED_AT
    x = truth.sample(HELD_OUT, torch.Generator().manual_seed(TEST_SEED)).double()
    with torch.no_grad():
        log_q = flow.log_prob(x)
    lost = truth.log_prob(x) - log_q
    return {
        "nats": -log_q.mean().item(),
        "gap": lost.mean().item(),
        "gap_error": lost.std().item() / math.sqrt(len(x)),
        "calls": float(flow.flow.stats.calls) if isinstance(flow.flow, CNF) and flow.flow.stats else 0.0,
    }


def done(place: Path, fit: Any) -> bool:
    """Whether a training is there and finished; `ValueError` if what is there was asked something else."""
    if not (place / "summary.json").is_file():
        return False
    there, here = {**Run(place).config, "versions": None}, {**asdict(fit), "versions": None}
    if there != here:
        raise ValueError(f"{place} holds a run of another recipe, {there}; wanted an empty folder, or {here}.")
    return True


def keep(place: Path, fit: Any, flow: nn.Module, summary: Mapping[str, Any]) -> None:
    """Write a finished training; its summary last, which says that it is finished."""
    run = Run(place)
    place.mkdir(parents=True, exist_ok=True)  # one that was cut off while it was written is written over
    write_json(place / "config.json", {**asdict(fit), "versions": versions("torch", "neuralode")})
    run.write_weights(flow)
    run.write_summary(summary)


def _train(fit: Fit, folder: Path) -> None:
    torch.manual_seed(fit.seed)
    density, flow = find_density(fit.density), build(fit)
    points = torch.Generator().manual_seed(fit.seed)

    def loss(left: float) -> Tensor:
        return -flow.log_prob(density.sample(fit.batch, points)).mean()

    seconds = descend(flow, loss, Descent(fit.steps, fit.rate))
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    keep(_place(folder, fit), fit, flow, {**judge(flow, fit.density), "parameters": parameters, "seconds": seconds})


def _continuous(units: int) -> CNF:
    # Steps are adapted also in training: on a fixed grid a flow learns to be wrong between its points, and the nats it
    # seems to win there are not there when it is solved.
    field = HyperPlanarField(2, units, width=64)
    return CNF(field, 2, (0.0, SPAN), rtol=TRAINED_AT, atol=TRAINED_AT, gradient="direct")


def _layered(layers: int) -> PlanarFlow:
    return PlanarFlow(2, layers, direction="density")


MODELS: Mapping[str, Callable[[int], CNF | PlanarFlow]] = {"cnf": _continuous, "planar": _layered}


def _place(folder: Path, fit: Fit) -> Path:
    return folder / f"{fit.model}-{fit.width}-{fit.seed}"


def _name(fit: Fit) -> str:
    return f"{fit.model} of {fit.width}"


def _row(runs: Mapping[int, Run]) -> Row:
    summaries = {seed: run.summary for seed, run in runs.items()}
    gaps = torch.tensor([summary["gap"] for summary in summaries.values()], dtype=torch.float64)

    def mean(name: str, digits: int = 4) -> float:
        return round(sum(summary[name] for summary in summaries.values()) / len(summaries), digits)

    config = next(iter(runs.values())).config
    return {
        "density": config["density"],
        "model": config["model"],
        "width": config["width"],
        "entropy": round(find_density(config["density"]).entropy, 4),
        "truth": round(mean("nats", 8) - mean("gap", 8), 4),
        "nats": mean("nats"),
        "gap": mean("gap"),
        "spread": round(gaps.std(correction=1).item(), 4) if len(gaps) > 1 else "",
        **{f"seed_{seed}": round(summary["gap"], 4) for seed, summary in summaries.items()},
        "parameters": next(iter(summaries.values()))["parameters"],
        "calls": mean("calls", 1),
        "seconds": mean("seconds", 1),
    }


def _figures(summary: Mapping[str, float]) -> str:
    return (
        f"{summary['nats']:.4f} nats, {summary['gap']:.4f} ± {summary['gap_error']:.4f} above the truth's, "
        f"{summary['seconds']:.0f} s"
    )
