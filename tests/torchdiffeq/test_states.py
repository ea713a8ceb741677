"""States that odeint accepts, values that func may return, and arguments that func receives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from both import Module, ours, theirs
from torch import Tensor, nn

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
BOTH = pytest.mark.parametrize("library", [ours, theirs], ids=["ours", "theirs"])
METHODS = pytest.mark.parametrize("method", ["dopri5", "rk4"])
DECAY = math.exp(-1)


def decay(t: Tensor, y: Any) -> Any:
    return tuple(-part for part in y) if isinstance(y, tuple) else -y


@METHODS
@pytest.mark.parametrize(
    ("library", "shape"),
    # torchdiffeq cannot choose a step for an empty state
    [(ours, (2, 0)), *((library, shape) for library in (ours, theirs) for shape in [(), (1,), (3,), (2, 3, 4)])],
)
def test_tensors_of_any_shape(library: Any, method: str, shape: tuple[int, ...]) -> None:
    ys = library.odeint(decay, torch.ones(shape, dtype=torch.float64), T, method=method)
    assert ys.shape == (3, *shape)
    assert torch.allclose(ys[-1], torch.full(shape, DECAY, dtype=torch.float64), rtol=2e-3)


@BOTH
@METHODS
def test_parts_of_a_tuple_are_promoted_to_the_widest_dtype(library: Any, method: str) -> None:
    y0 = torch.ones(2, 3), torch.ones((), dtype=torch.float64), torch.ones(4, dtype=torch.float16)
    seen = set()

    def function(t: Tensor, y: Any) -> Any:
        seen.add((t.dtype, t.dim(), *(part.dtype for part in y), *(tuple(part.shape) for part in y)))
        return decay(t, y)

    ys = library.odeint(function, y0, T, method=method)
    assert seen == {(torch.float64, 0, *[torch.float64] * 3, (2, 3), (), (4,))}
    assert [part.dtype for part in ys] == [torch.float64] * 3
    assert [tuple(part.shape) for part in ys] == [(3, 2, 3), (3,), (3, 4)]


@BOTH
@METHODS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("tupled", [False, True])
def test_func_receives_time_in_the_dtype_of_the_state(
    library: Any, method: str, dtype: torch.dtype, tupled: bool
) -> None:
    seen = set()

    def function(t: Tensor, y: Any) -> Any:
        seen.add((t.dtype, t.dim(), (y[0] if tupled else y).dtype))
        return decay(t, y)

    y0 = torch.ones(2, 3, dtype=dtype)
    ys = library.odeint(function, (y0, y0) if tupled else y0, T, method=method, rtol=1e-2, atol=1e-2)
    last = ys[0] if tupled else ys
    assert seen == {(dtype, 0, dtype)}
    assert last.dtype == dtype
    assert (last[-1].double() - DECAY).abs().max() < 0.05


def test_half_precision_is_accumulated_in_float32() -> None:
    y0 = torch.ones(3, dtype=torch.float16)
    options = {"step_size": 1e-4}
    found, other = (
        library.odeint(lambda t, y: torch.full_like(y, 0.25), y0, T, method="euler", options=options)[-1]
        for library in (ours, theirs)
    )
    assert (found.double() - 1.25).abs().max() < 1e-3
    assert (other.double() - 1.25).abs().max() > 0.2  # 1 + 0.000025 is 1 in float16


@BOTH
@METHODS
def test_complex_states_are_solved(library: Any, method: str) -> None:
    y0 = torch.tensor([1.0 + 0j, 2.0j], dtype=torch.complex128)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    seen = set()

    def function(t: Tensor, y: Tensor) -> Tensor:
        seen.add(t.dtype)
        return 2j * y

    ys = library.odeint(function, y0, t, method=method)
    assert seen == {torch.float64}
    assert torch.allclose(ys[-1], y0 * complex(math.cos(2), math.sin(2)), rtol=1e-6)


def test_complex_gradients_agree() -> None:
    found = []
    for library in (ours, theirs):
        y0 = torch.tensor([1.0 + 0.5j, 2.0j], dtype=torch.complex128, requires_grad=True)
        rate = torch.tensor(0.3 + 1j, dtype=torch.complex128, requires_grad=True)
        ys = library.odeint(lambda t, y, rate=rate: rate * y * t, y0, T, method="rk4")
        (ys[-1] * torch.tensor([1.0, 2.0 + 1j])).sum().abs().backward()
        found.append((y0.grad, rate.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


@BOTH
@METHODS
def test_func_may_return_lists_other_dtypes_or_shapes_that_broadcast(library: Any, method: str) -> None:
    y0 = torch.ones(2, 3)
    parts = library.odeint(lambda t, y: [-y[0].double(), -y[1].reshape(3, 2)], (y0, y0), T, method=method)
    assert all(torch.allclose(part[-1], torch.tensor(DECAY), rtol=2e-3) for part in parts)
    ys = library.odeint(lambda t, y: -y.double(), y0, T, method="rk4")
    assert ys.dtype == torch.float32
    assert torch.allclose(ys[-1], torch.tensor(DECAY), rtol=2e-3)
    ys = library.odeint(lambda t, y: torch.ones(3), y0, T, method="euler")
    assert torch.allclose(ys[-1], torch.tensor(2.0))
    ys = library.odeint(lambda t, y: 1.0, y0, T, method="euler")
    assert torch.allclose(ys[-1], torch.tensor(2.0))


@BOTH
@METHODS
def test_one_time_gives_the_state_itself(library: Any, method: str) -> None:
    y0 = torch.ones(2, 3)
    assert torch.equal(library.odeint(decay, y0, T[:1], method=method), y0[None])
    parts = library.odeint(decay, (y0, y0[0]), T[:1], method=method)
    assert [tuple(part.shape) for part in parts] == [(1, 2, 3), (1, 3)]


@BOTH
@pytest.mark.parametrize("times", [T.float(), T.half(), T.bfloat16()], ids=lambda t: str(t.dtype))
def test_times_of_any_dtype(library: Any, times: Tensor) -> None:
    ys = library.odeint(decay, torch.ones(3, dtype=torch.float64), times)
    assert torch.allclose(ys[-1], torch.tensor(DECAY, dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize(
    ("library", "tolerance"),
    [
        (ours, (1e-3, torch.tensor(1e-9))),
        *(
            (library, tolerance)
            for library in (ours, theirs)
            for tolerance in ([1e-3, 1e-9], torch.tensor([1e-3, 1e-9]), torch.tensor(1e-6))
        ),
    ],
)
def test_tolerances_of_a_tensor_state_may_be_lists(library: Any, tolerance: Any) -> None:
    ys = library.odeint(decay, torch.ones(3, 2, dtype=torch.float64), T, rtol=tolerance, atol=tolerance)
    assert (ys[-1] - DECAY).abs().max() < 2e-3


@BOTH
@pytest.mark.parametrize("tolerance", [(1e-3, 1e-9), [torch.tensor(1e-3), torch.full((6,), 1e-9)], 1e-6])
def test_tolerances_of_a_tuple_state_are_one_for_each_part(library: Any, tolerance: Any) -> None:
    y0 = torch.ones((), dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    ys = library.odeint(decay, y0, T, rtol=tolerance, atol=tolerance)
    assert (ys[1][-1] - DECAY).abs().max() < 1e-4


def test_the_strictest_part_of_a_tuple_controls_the_steps() -> None:
    def steps(rtol: Any) -> int:
        count = 0

        def function(t: Tensor, y: Any) -> Any:
            nonlocal count
            count += 1
            return decay(t, y)

        y0 = torch.ones(2, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        ours.odeint(function, y0, T, rtol=rtol, atol=rtol)
        return count

    assert steps((1e-9, 1e-3)) == steps(1e-9) > steps((1e-3, 1e-3))


@BOTH
def test_func_may_count_calls_and_set_attributes(library: Any) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.nfe = 0

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            self.nfe += 1
            self.last = t
            return torch.tanh(self.linear(y))

    field = Counting()
    library.odeint(field, torch.ones(3, 2), T)[-1].sum().backward()
    assert field.nfe > 6
    assert all(p.grad is not None for p in field.parameters())


def test_parameters_used_only_by_later_evaluations_receive_gradients() -> None:
    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.late = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.early(y) if t < 0.5 else self.late(y))

    field = Switching()
    for function in (field, field.forward, lambda t, y: field(t, y)):
        field.zero_grad()
        ours.odeint(function, torch.ones(3, 2), T, method="rk4", options={"step_size": 0.1})[-1].sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in field.parameters())


@METHODS
def test_gradients_belong_to_the_random_numbers_that_func_drew(method: str) -> None:
    noise: list[Tensor] = []

    def noisy(t: Tensor, y: Tensor) -> Tensor:
        noise.append(torch.randn((), dtype=y.dtype))
        return rate * y + noise[-1]

    rate = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    options = {"method": method} if method == "rk4" else {"method": method, "rtol": 1e-1, "atol": 10.0}
    y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    end = ours.odeint(noisy, y0, T[[0, -1]], **options)[-1]
    end.sum().backward()
    # with additive noise, ∂y1/∂y0 is that of the mean
    assert torch.allclose(y0.grad, torch.exp(torch.tensor(-0.5, dtype=torch.float64)), rtol=1e-2)
    assert rate.grad is not None
    assert rate.grad.abs() > 0


def test_dropout_can_be_trained() -> None:
    net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 2))
    y0 = torch.randn(8, 2)
    for interface in (ours.odeint, ours.odeint_adjoint):
        net.zero_grad()
        interface(Module(lambda t, y: net(y)), y0, T, method="rk4", **adjoint_of(interface, net))[-1].sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def adjoint_of(interface: Any, net: nn.Module) -> dict[str, Any]:
    return {"adjoint_params": tuple(net.parameters())} if interface is ours.odeint_adjoint else {}


def test_func_may_build_its_own_graphs() -> None:
    # as in continuous normalizing flows written for torchdiffeq
    weight = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)

    def with_divergence(t: Tensor, state: Any) -> Any:
        y, _ = state
        with torch.enable_grad():
            y.requires_grad_(True)
            slope = torch.tanh(y @ weight)
            divergence = sum(
                torch.autograd.grad(slope[:, i].sum(), y, create_graph=True)[0][:, i] for i in range(y.shape[1])
            )
        return slope, -divergence

    found = []
    for library in (ours, theirs):
        weight.grad = None
        y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
        _, change = library.odeint(with_divergence, (y0, torch.zeros(3, dtype=torch.float64)), T, method="rk4")
        change[-1].sum().backward()
        assert weight.grad is not None
        found.append((change.detach(), weight.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-10)


def test_all_arguments_may_be_passed_by_keyword() -> None:
    ys = ours.odeint(func=decay, y0=torch.ones(2), t=T)
    assert ys.shape == (3, 2)
    ys = ours.odeint_adjoint(func=decay, y0=torch.ones(2), t=T, adjoint_params=())
    assert ys.shape == (3, 2)


def test_channels_last_states_keep_their_memory_format() -> None:
    seen = set()

    def function(t: Tensor, y: Tensor) -> Tensor:
        seen.add(y.is_contiguous(memory_format=torch.channels_last))
        return -y

    ours.odeint(function, torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), T, method="rk4")
    assert seen == {True}
