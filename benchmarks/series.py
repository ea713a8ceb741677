"""Irregular series: each walked over at its own times, against the usual walk over the union of the batch's times.

On PhysioNet, with the same weights both ways. Steps in a row are those that wait for each other: an ODE step and a GRU
update each. The usual walk moves every patient to every time of the batch and masks who was not seen then. Both take
one Euler step from a time to the next, by the same code: calling a solver there, as is also usual, costs more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.timing import Table, Timing, interleaved
from neuralode.data.physionet import Patients, physionet
from neuralode.nn import ODERNN, LatentODE, Observations, SeriesNet
from neuralode.tasks.physionet.interpolation import bound, half, latent_ode, on_unit_scale
from neuralode.training.modules.series_classification import Batch, Batches

BATCH = 64
BATCHES = 3  # timed together: they differ in how long they are
PATIENTS = 8000  # of an epoch, where it is not measured
EVERY = (6, 1)  # minutes that times are rounded to
HIDDEN, WIDTH, LATENT = 40, 50, 20
UNION, OWN, ALIKE = "union of times", "own times", "own times, like lengths together"


class UnionODERNN(ODERNN):
    """The same network, walked over the union of all times.

    Parameters
    ----------
    hold : bool
        Keep the state at 0 until a series' first observation, as our walk has it; the usual one lets it drift.
    """

    def __init__(self, *args, hold: bool = False, **options) -> None:
        super().__init__(*args, **options)
        self.hold = hold

    def states(self, observed: Observations) -> Tensor:
        rows, steps = observed.inside.nonzero(as_tuple=True)
        times, place = torch.unique(observed.times[rows, steps], return_inverse=True)
        inputs = self.inputs(observed)[rows, steps]
        shown = inputs.new_zeros(len(times), len(observed), inputs.shape[1])
        shown[place, rows] = inputs
        there = torch.zeros(len(times), len(observed), 1, dtype=torch.bool, device=shown.device)
        there[place, rows] = True
        begun = there.long().cummax(0).values.bool()

        h, walked = shown.new_zeros(len(observed), self.hidden), []
        for step in range(len(times)):
            if step:
                moved = self.between(h, times[step - 1].expand(len(h)), times[step].expand(len(h)))
                h = torch.where(begun[step - 1], moved, h) if self.hold else moved
            h = torch.where(there[step], self.cell(shown[step], h), h)
            walked.append(h)
        states = h.new_zeros(*observed.times.shape, self.hidden)
        states[rows, steps] = torch.stack(walked)[place, rows]
        return states


@dataclass(frozen=True)
class Result:
    """One way at one rounding: a training step of 64 patients, and what follows from it."""

    every: int
    what: str
    way: str
    timing: Timing
    steps: float  # of the walk, or times that the decoder answers for, as a mean over the batches
    epoch: float  # seconds for 8,000 patients at this rate


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure both roundings; returns the results and the tables that show them."""
    results, epochs, gaps = [], [], []
    for every in EVERY:
        print(f"series: {every} min", file=sys.stderr, flush=True)
        try:
            patients = physionet("ab", every=every)
        except FileNotFoundError as error:
            return [], [Table("Series", ["left out"], [[str(error)]])]
        results += walks(patients, every, device, samples) + decoders(patients, every, device, samples)
        epochs.append([f"{every} min", f"{epoch(patients, device):.1f}"])
        gaps += agreement(patients, every)
    tables = [
        table(results, "ODE-RNN", UNION, "steps in a row"),
        table(results, "latent ODE", "per_sample=False", "output times"),
    ]
    tables.append(Table("A whole epoch of ours, with its optimizer", ["times", "seconds, 7,991 patients"], epochs))
    note = "The largest difference between the states of the two walks, float64, relative to the largest state."
    tables.append(Table("Union against own times", ["times", "between observations", "difference"], gaps, note))
    return results, tables


def walks(patients: Patients, every: int, device: torch.device, samples: int) -> list[Result]:
    """A training step of the ODE-RNN."""
    ours = network(ODERNN, device)
    theirs = network(UnionODERNN, device)
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(0)
    scaled = patients.scaled_as(patients)
    some = torch.randperm(len(patients))[: BATCHES * BATCH].split(BATCH)
    mixed = [(scaled.observed[rows].to(device), scaled.died[rows].long().to(device)) for rows in some]
    alike = [(x.to(device), y.to(device)) for (x, y), _ in zip(shuffled(scaled), range(BATCHES * 4), strict=False)]
    plans = {UNION: (theirs, mixed), OWN: (ours, mixed), ALIKE: (ours, alike)}
    timings = interleaved({way: partial(learn, *plan) for way, plan in plans.items()}, samples, device)
    length = {UNION: moments, OWN: longest, ALIKE: longest}
    return [
        result(every, "ODE-RNN", way, timings[way], [length[way](observed) for observed, _ in plans[way][1]])
        for way in plans
    ]


def decoders(patients: Patients, every: int, device: torch.device, samples: int) -> list[Result]:
    """Decoding by the latent ODE and its derivative, from z0 on; and a whole training step, with its recognition."""
    torch.manual_seed(0)
    observed = on_unit_scale(patients)
    some = torch.randperm(len(patients))[: BATCHES * BATCH].split(BATCH)
    batches = [observed[rows].to(device) for rows in some]
    runs: dict[tuple[str, str], Callable[[], None]] = {}
    for per_sample in (True, False):
        torch.manual_seed(1)
        reader = ODERNN(observed.channels, HIDDEN, width=WIDTH, method="euler")
        model = latent_ode(observed.channels, LATENT, reader, WIDTH).to(device)
        model.per_sample = per_sample
        way = f"per_sample={per_sample}"
        runs["latent ODE, decoding", way] = partial(decode, model, batches)
        runs["latent ODE, training step", way] = partial(explain, model, batches)
    timings = interleaved({str(key): call for key, call in runs.items()}, samples, device)
    results = []
    for what, way in runs:
        length = longest if way == "per_sample=True" else moments
        counts = [length(batch) for batch in batches]
        results.append(result(every, what, way, timings[str((what, way))], counts))
    return results


def network(kind: type[ODERNN], device: torch.device) -> SeriesNet:
    torch.manual_seed(0)
    return SeriesNet(kind(37, HIDDEN, width=WIDTH, method="euler"), outputs=2, static=10).to(device)


def learn(model: nn.Module, batches: Sequence[Batch]) -> None:
    for observed, died in batches:
        model.zero_grad()
        cross_entropy(model(observed), died).backward()


def decode(model: LatentODE, batches: Sequence[Observations]) -> None:
    for observed in batches:
        z0 = torch.zeros(1, len(observed), LATENT, device=observed.values.device, requires_grad=True)
        z, _ = model.follow(z0, observed.start, observed.times)
        model.likelihood.log_prob(model.decode(z[0]), observed.values, observed.seen).sum().backward()


def explain(model: LatentODE, batches: Sequence[Observations]) -> None:
    for observed in batches:
        bound(model, observed.keeping(half(observed)), observed).mean().backward()


def epoch(patients: Patients, device: torch.device) -> float:
    """Seconds that all patients take once, with the optimizer."""
    scaled = patients.scaled_as(patients)
    model = network(ODERNN, device)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    observed, died = next(iter(shuffled(scaled)))
    learn(model, [(observed.to(device), died.to(device))])  # warm up
    started = time.perf_counter()
    for observed, died in shuffled(scaled):
        learn(model, [(observed.to(device), died.to(device))])
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def agreement(patients: Patients, every: int) -> list[list[str]]:
    """How far the two walks are apart: by the error of the solver, which takes more steps on the union."""
    observed = patients.scaled_as(patients).observed[torch.arange(16)].to(torch.float64)
    rows = []
    for name, solver in {
        "Euler, 1 step": {"method": "euler"},
        "RK4, 1 step": {"method": "rk4"},
        "RK4, 8 steps": {"method": "rk4", "steps": 8},
    }.items():
        torch.manual_seed(0)
        ours = ODERNN(37, HIDDEN, width=WIDTH, **solver).double()
        theirs = UnionODERNN(37, HIDDEN, width=WIDTH, hold=True, **solver).double()
        theirs.load_state_dict(ours.state_dict())
        with torch.no_grad():
            mine, usual = ours.states(observed), theirs.states(observed)
        rows.append([f"{every} min", name, f"{float((mine - usual).abs().max() / mine.abs().max()):.1e}"])
    return rows


def shuffled(patients: Patients) -> Batches:
    return Batches(patients.observed, patients.died.long(), BATCH, shuffle=True)


def moments(observed: Observations) -> int:
    return len(torch.unique(observed.times[observed.inside]))


def longest(observed: Observations) -> int:
    return int(observed.lengths.max())


def result(every: int, what: str, way: str, timing: Timing, counts: Sequence[int]) -> Result:
    each = replace(
        timing, median=timing.median / len(counts), low=timing.low / len(counts), high=timing.high / len(counts)
    )
    return Result(every, what, way, each, sum(counts) / len(counts), PATIENTS / BATCH * each.median / 1e3)


def table(results: list[Result], what: str, usual: str, counted: str) -> Table:
    ours = [r for r in results if r.what.startswith(what)]
    reference = {(r.every, r.what): r.timing.median for r in ours if r.way == usual}
    rows = [
        [
            f"{r.every} min", r.what, r.way, f"{r.steps:.0f}", str(r.timing), f"{r.epoch:.1f}",
            f"{reference[r.every, r.what] / r.timing.median:.1f}×",
        ]
        for r in ours
    ]  # fmt: skip
    columns = ["times", "what", "way", counted, "ms a step (range)", "s for 8,000 patients", "faster"]
    return Table(f"{what}: forward and backward, batch {BATCH}", columns, rows)
