"""Decisions about steps are pure tensor code: torch.compile traces them as one graph, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fields import METHODS
from torch import Tensor
from torch.utils._pytree import tree_flatten

import neuralode as node
from neuralode import PI, PID, Fixed, Given, I
from neuralode.controllers import find_stops
from neuralode.controllers.base import AttemptOutcome, StepRequest
from neuralode.core.layout import lay_out
from neuralode.core.norms import Norm
from neuralode.core.problem import make_problem
from neuralode.methods.base import StepStart

ROWS = 3
CLOCKS = pytest.mark.parametrize("clock", ["rows", "0-d"])
DIRECTIONS = pytest.mark.parametrize("direction", [1.0, -1.0], ids=["forward", "backward"])
EXPLICIT = [name for name, method in METHODS.items() if method.memoryless and not method.implicit]
PIDS: dict[str, Any] = {
    "I": I(),
    "PI": PI(),
    "PID": PID(),
    "bounded": PID(min_step=0.05, max_step=0.3),
    "max norm": I(norm="max"),
}
GRIDS: dict[str, Any] = {
    "Fixed": Fixed(0.15),
    "Given": Given(torch.linspace(0, 1, 8)),
    "Given by row": Given(torch.tensor([[0.0, 0.1, 0.4, 1.0], [0.0, 0.5, 1.0, 1.0], [0.0, 0.9, 0.95, 1.0]])),
}
ROWS_ONLY = {("Given by row", "0-d")}
# accepted, rejected, negligible, overflowed and undefined
RATIOS = [0.3, 7.0, 0.0, float("inf"), float("nan"), 1.0]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def agrees_when_compiled(function: Callable[..., Any], *arguments: Any) -> None:
    """Compare a function with its trace: the same structure, and the same bits."""
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    expected, spec = tree_flatten(function(*arguments))
    traced, traced_spec = tree_flatten(compiled(*arguments))
    assert traced_spec == spec
    for a, b in zip(traced, expected, strict=True):
        assert isinstance(a, Tensor) == isinstance(b, Tensor)
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b


def on_clock(numbers: list[float], clock: str) -> list[Tensor]:
    """The numbers as per-row clocks of three rows, or one by one."""
    if clock == "0-d":
        return [torch.tensor(x, dtype=torch.float64) for x in numbers]
    return [torch.tensor(numbers[i : i + ROWS], dtype=torch.float64) for i in range(0, len(numbers), ROWS)]


def requests(clock: str, direction: float) -> list[StepRequest]:
    """In the middle, with the end just within reach, and with the end two steps ahead."""
    times = on_clock([0.2, 0.5, 0.85], clock)
    sizes = on_clock([0.1, 0.495, 0.1], clock)
    ends = [torch.full_like(t, 1.0) for t in times]
    return [
        StepRequest(t * direction, h, end * direction, direction) for t, h, end in zip(times, sizes, ends, strict=True)
    ]


def grid(name: str, direction: float) -> Any:
    controller = GRIDS[name]
    return Given(controller.times * direction) if isinstance(controller, Given) else controller


@CLOCKS
@DIRECTIONS
@pytest.mark.parametrize("name", PIDS)
def test_pid_proposes_alike(name: str, direction: float, clock: str) -> None:
    for request in requests(clock, direction):
        history = PIDS[name].start(request.t * 0, request.end)
        agrees_when_compiled(PIDS[name].propose, request, history)


@CLOCKS
@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("name", PIDS)
def test_pid_decides_alike(name: str, clipped: bool, clock: str) -> None:
    controller = PIDS[name]
    zero = on_clock([0.0, 0.0, 0.0], clock)[0]
    history = controller.start(zero, zero + 1)
    for ratio in on_clock(RATIOS, clock):
        h = torch.full_like(ratio, 0.1)
        flag = torch.full_like(ratio, clipped, dtype=torch.bool)
        outcome = AttemptOutcome(ratio=ratio, h=h, planned=h * (1 + clipped), clipped=flag, order=5)
        agrees_when_compiled(controller.decide, outcome, history)
        history = controller.decide(outcome, history).history


@pytest.mark.parametrize(
    ("name", "clock"), [(name, clock) for name in GRIDS for clock in ("rows", "0-d") if (name, clock) not in ROWS_ONLY]
)
@DIRECTIONS
def test_grids_propose_and_decide_alike(name: str, direction: float, clock: str) -> None:
    controller = grid(name, direction)
    for request in requests(clock, direction):
        history = controller.start(request.t * 0, request.end)
        for clipped in (False, True):
            proposal = controller.propose(request, history)
            flag = torch.full_like(request.t, clipped, dtype=torch.bool)
            outcome = AttemptOutcome(ratio=None, h=abs(proposal.h), planned=request.h, clipped=flag, order=1)
            agrees_when_compiled(controller.propose, request, history)
            agrees_when_compiled(controller.decide, outcome, history)
            history = controller.decide(outcome, history).history


@CLOCKS
def test_a_grid_on_0_d_clocks_is_that_of_floats(clock: str) -> None:
    """A shared clock gives the same times, whether its numbers are floats or tensors."""
    for controller in (Fixed(0.15), Given(torch.linspace(0, 1, 8))):
        t: Any = 0.0
        shape = (ROWS,) if clock == "rows" else ()
        tensor_t = torch.zeros(shape, dtype=torch.float64)
        end = torch.ones(shape, dtype=torch.float64)
        history, tensor_history = controller.start(t, 1.0), controller.start(tensor_t, end)
        for _ in range(7):
            proposal = controller.propose(StepRequest(t, 0.1, 1.0, 1.0), history)
            tensor_proposal = controller.propose(StepRequest(tensor_t, end, end, 1.0), tensor_history)
            assert tensor_proposal.t1.tolist() == torch.full(shape, proposal.t1, dtype=torch.float64).tolist()
            assert bool(tensor_proposal.reaches_end.all()) == proposal.reaches_end
            t, tensor_t = proposal.t1, tensor_proposal.t1
            outcome = AttemptOutcome(ratio=None, h=abs(proposal.h), planned=0.1, clipped=False, order=1)
            tensors = outcome._replace(h=abs(tensor_proposal.h), planned=end, clipped=end == 0)
            history = controller.decide(outcome, history).history
            tensor_history = controller.decide(tensors, tensor_history).history
        assert t == 1.0


@pytest.mark.parametrize("adaptive", [True, False], ids=["adaptive", "fixed"])
@DIRECTIONS
def test_stops_propose_alike_by_row(direction: float, adaptive: bool) -> None:
    controller: Any = I() if adaptive else Fixed(0.15)
    problem = make_problem(lambda t, y: y, torch.ones(ROWS, 1), (0.0, direction), per_sample=True)
    stops = find_stops(problem, step_t=[0.25 * direction], jump_t=[0.6 * direction, 0.9 * direction])
    (request,) = requests("rows", direction)
    history = controller.start(request.t * 0, request.end)
    agrees_when_compiled(lambda request, history: stops.propose(controller, request, history), request, history)


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "by row"])
@pytest.mark.parametrize("reduction", ["rms", "max", "own"])
@pytest.mark.parametrize("kind", ["matrix", "pair", "complex"])
def test_the_norm_is_traced(kind: str, reduction: Any, per_sample: bool) -> None:
    torch.manual_seed(0)
    y: Any = torch.randn(ROWS, 4, dtype=torch.complex128 if kind == "complex" else torch.float64)
    tree = (y, y[:, :2]) if kind == "pair" else y
    layout = lay_out(tree, per_sample)

    def own(scaled: Any) -> Tensor:
        first = scaled[0] if kind == "pair" else scaled
        return first.abs().amax(1) if per_sample else first.abs().amax()

    rtol = torch.linspace(1e-3, 1e-2, layout.features, dtype=torch.float64)[None]
    norm = Norm(
        layout=layout,
        rtol=rtol,
        atol=1e-6,
        per_sample=per_sample,
        reduction=own if reduction == "own" else reduction,
    )
    before = layout.pack(tree)
    after, error = before * 1.1, before * 1e-3
    agrees_when_compiled(norm, error, before, after)
    agrees_when_compiled(norm, (error, error * 3), before, before)


@CLOCKS
@pytest.mark.parametrize("name", EXPLICIT)
def test_explicit_steps_are_traced(name: str, clock: str) -> None:
    method: Any = node.methods()[name]
    torch.manual_seed(0)
    y = torch.randn(ROWS, 2, dtype=torch.float64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t)[..., None] * y - y**3

    numbers = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    t, h = (numbers, numbers / 3) if clock == "rows" else (numbers[0], numbers[1])
    start = StepStart(f=f, t=t, y=y, h=h, method_state=method.begin(f(t, y)))

    def step(t: Tensor, y: Tensor, h: Tensor, method_state: Any) -> Any:
        taken = method.step(StepStart(f=f, t=t, y=y, h=h, method_state=method_state))
        return taken.y1, taken.error, taken.method_state, taken.method_state_if_rejected, taken.evaluations

    agrees_when_compiled(step, t, y, h, start.method_state)
    agrees_when_compiled(step, t + h, y, h, None)
