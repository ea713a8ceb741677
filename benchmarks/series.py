"""Irregular series: a recurrence over each series' own times against one over the union of all times in the batch.

PhysioNet, with the same weights for both. "sequential steps" cannot run in parallel: each is an ODE step and a GRU
update. The union recurrence, which is the usual one, moves every patient to every time of the batch and masks patients
without an observation there. Both take one Euler step between times with the same code; calling a solver instead, as is
also usual, costs more.
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
from neuralode.tasks.physionet.interpolation import elbo, latent_ode, random_half, scale_to_unit
from neuralode.training.modules.series_classification import Batch, Batches

BATCH = 64
BATCHES = 3  # timed together, as their lengths differ
PATIENTS = 8000  # per extrapolated epoch
EVERY = (6, 1)  # minutes to which times are rounded
HIDDEN, WIDTH, LATENT = 40, 50, 20
UNION, OWN, SORTED = "union of times", "own times", "own times, batches of similar length"


class UnionODERNN(ODERNN):
    """The same network, with the recurrence over the union of all times.

    Parameters
    ----------
    hold : bool
        Keep the state at 0 until the first observation of a series, as `ODERNN` does. Usually it evolves before.
    """

    def __init__(self, *args, hold: bool = False, **options) -> None:
        super().__init__(*args, **options)
        self.hold = hold

    def states(self, observed: Observations) -> Tensor:
        rows, steps = observed.inside.nonzero(as_tuple=True)
        times, index = torch.unique(observed.times[rows, steps], return_inverse=True)
        inputs = self.inputs(observed)[rows, steps]
        inputs_at = inputs.new_zeros(len(times), len(observed), inputs.shape[1])
        inputs_at[index, rows] = inputs
        present = torch.zeros(len(times), len(observed), 1, dtype=torch.bool, device=inputs_at.device)
        present[index, rows] = True
        started = present.long().cummax(0).values.bool()

        h, history = inputs_at.new_zeros(len(observed), self.hidden), []
        for step in range(len(times)):
            if step:
                moved = self.between(h, times[step - 1].expand(len(h)), times[step].expand(len(h)))
                h = torch.where(started[step - 1], moved, h) if self.hold else moved
            h = torch.where(present[step], self.cell(inputs_at[step], h), h)
            history.append(h)
        states = h.new_zeros(*observed.times.shape, self.hidden)
        states[rows, steps] = torch.stack(history)[index, rows]
        return states


@dataclass(frozen=True)
class Result:
    """One variant at one rounding of times: a training step of 64 patients."""

    every: int
    what: str
    variant: str
    timing: Timing
    steps: float  # sequential steps, or output times of the decoder; mean over the batches
    epoch: float  # seconds for 8,000 patients at this rate


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure both roundings of times; return the results and their tables."""
    results, epochs, gaps = [], [], []
    for every in EVERY:
        print(f"series: {every} min", file=sys.stderr, flush=True)
        try:
            patients = physionet("ab", every=every)
        except FileNotFoundError as error:
            return [], [Table("Series", ["skipped"], [[str(error)]])]
        timed = {"device": device, "samples": samples}
        results += recurrences(patients, every, **timed) + decoders(patients, every, **timed)
        epochs.append([f"{every} min", f"{epoch(patients, device):.1f}"])
        gaps += agreement(patients, every)
    tables = [
        table(results, "ODE-RNN", baseline=UNION, counted="sequential steps"),
        table(results, "latent ODE", baseline="per_sample=False", counted="output times"),
    ]
    tables.append(Table("One epoch of ours, optimizer included", ["times", "seconds, 7,991 patients"], epochs))
    note = "Maximum difference between the states of the two recurrences in float64, relative to the largest state."
    tables.append(Table("Union against own times", ["times", "between observations", "difference"], gaps, note=note))
    return results, tables


def recurrences(patients: Patients, every: int, *, device: torch.device, samples: int) -> list[Result]:
    """Time a training step of the ODE-RNN."""
    ours = network(ODERNN, device)
    theirs = network(UnionODERNN, device)
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(0)
    scaled = patients.standardized(patients)
    chosen = torch.randperm(len(patients))[: BATCHES * BATCH].split(BATCH)
    random_batches = [(scaled.observed[rows].to(device), scaled.died[rows].long().to(device)) for rows in chosen]
    sorted_batches = [
        (x.to(device), y.to(device)) for (x, y), _ in zip(shuffled(scaled), range(BATCHES * 4), strict=False)
    ]
    variants = {UNION: (theirs, random_batches), OWN: (ours, random_batches), SORTED: (ours, sorted_batches)}
    timings = interleaved({name: partial(learn, *v) for name, v in variants.items()}, samples, device)
    length = {UNION: distinct_times, OWN: longest, SORTED: longest}
    return [
        result(
            every,
            what="ODE-RNN",
            variant=name,
            timing=timings[name],
            counts=[length[name](observed) for observed, _ in batches],
        )
        for name, (_, batches) in variants.items()
    ]


def decoders(patients: Patients, every: int, *, device: torch.device, samples: int) -> list[Result]:
    """Time decoding by the latent ODE with its gradient from z0, and a whole training step with the encoder."""
    torch.manual_seed(0)
    observed = scale_to_unit(patients)
    chosen = torch.randperm(len(patients))[: BATCHES * BATCH].split(BATCH)
    batches = [observed[rows].to(device) for rows in chosen]
    runs: dict[tuple[str, str], Callable[[], None]] = {}
    for per_sample in (True, False):
        torch.manual_seed(1)
        reader = ODERNN(observed.channels, HIDDEN, width=WIDTH, method="euler")
        model = latent_ode(observed.channels, LATENT, encoder=reader, width=WIDTH).to(device)
        model.per_sample = per_sample
        variant = f"per_sample={per_sample}"
        runs["latent ODE, decoding", variant] = partial(decode, model, batches)
        runs["latent ODE, training step", variant] = partial(fit_bound, model, batches)
    timings = interleaved({str(key): call for key, call in runs.items()}, samples, device)
    results = []
    for what, variant in runs:
        length = longest if variant == "per_sample=True" else distinct_times
        counts = [length(batch) for batch in batches]
        timing = timings[str((what, variant))]
        results.append(result(every, what=what, variant=variant, timing=timing, counts=counts))
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


def fit_bound(model: LatentODE, batches: Sequence[Observations]) -> None:
    for observed in batches:
        elbo(model, observed.keeping(random_half(observed)), observed).mean().backward()


def epoch(patients: Patients, device: torch.device) -> float:
    """Return the seconds of one pass over all patients, optimizer included."""
    scaled = patients.standardized(patients)
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
    """Tabulate the difference of the two recurrences: solver error, as the union takes more steps."""
    observed = patients.standardized(patients).observed[torch.arange(16)].to(torch.float64)
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
            own, union = ours.states(observed), theirs.states(observed)
        rows.append([f"{every} min", name, f"{float((own - union).abs().max() / own.abs().max()):.1e}"])
    return rows


def shuffled(patients: Patients) -> Batches:
    return Batches(patients.observed, patients.died.long(), BATCH, shuffle=True)


def distinct_times(observed: Observations) -> int:
    return len(torch.unique(observed.times[observed.inside]))


def longest(observed: Observations) -> int:
    return int(observed.lengths.max())


def result(every: int, *, what: str, variant: str, timing: Timing, counts: Sequence[int]) -> Result:
    n = len(counts)
    per_batch = replace(timing, median=timing.median / n, low=timing.low / n, high=timing.high / n)
    epoch = PATIENTS / BATCH * per_batch.median / 1e3
    return Result(every, what, variant, timing=per_batch, steps=sum(counts) / n, epoch=epoch)


def table(results: list[Result], what: str, *, baseline: str, counted: str) -> Table:
    ours = [r for r in results if r.what.startswith(what)]
    reference = {(r.every, r.what): r.timing.median for r in ours if r.variant == baseline}
    rows = [
        [
            f"{r.every} min", r.what, r.variant, f"{r.steps:.0f}", str(r.timing), f"{r.epoch:.1f}",
            f"{reference[r.every, r.what] / r.timing.median:.1f}×",
        ]
        for r in ours
    ]  # fmt: skip
    columns = ["times", "what", "variant", counted, "ms per step (range)", "s for 8,000 patients", "speedup"]
    return Table(f"{what}: forward and backward, batch {BATCH}", columns, rows)
