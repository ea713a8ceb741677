"""Jacobians and products with them for many kinds of f, compared with `torch.autograd.functional.jacobian`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralode.core.jacobians import Linearised, jacobian, jvp, vjp

T = torch.tensor(0.3)
FLOAT, COMPLEX = torch.float64, torch.complex128


def real(rows: Tensor) -> Tensor:
    return (torch.view_as_real(rows) if rows.is_complex() else rows).reshape(-1)


def whole(f: Callable[[Tensor, Tensor], Tensor], y: Tensor) -> Tensor:
    """Return the Jacobian of the whole state."""

    def flat(x: Tensor) -> Tensor:
        parts = x.reshape(*y.shape, 2) if y.is_complex() else x.reshape(y.shape)
        return real(f(T, torch.view_as_complex(parts) if y.is_complex() else parts))

    return torch.autograd.functional.jacobian(flat, real(y).clone())


def check(f: Callable[[Tensor, Tensor], Tensor], y: Tensor, coupled: bool = False, tolerance: float = 1e-12) -> None:
    wanted = whole(f, y)
    close: Any = {"rtol": tolerance, "atol": tolerance}
    found = jacobian(f, T, y, coupled=coupled)
    n = wanted.shape[0] // len(y)
    if coupled:
        torch.testing.assert_close(found, wanted[None], **close)
    else:
        blocks = torch.stack([wanted[i * n : (i + 1) * n, i * n : (i + 1) * n] for i in range(len(y))])
        torch.testing.assert_close(found, blocks, **close)
    v, w = torch.randn_like(y), torch.randn_like(y)
    along, back = jvp(f, T, y, v=v), vjp(f, T, y, w=w)
    torch.testing.assert_close(real(along), wanted @ real(v), **close)
    torch.testing.assert_close(real(back), wanted.T @ real(w), **close)
    near = Linearised(f, T, y)
    for _ in range(2):  # products can be repeated
        torch.testing.assert_close(near.jvp(v), along, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(near.vjp(w), back, rtol=1e-13, atol=1e-13)
    assert not any(x.requires_grad for x in (found, along, back))


class Square(torch.autograd.Function):
    """An old autograd function, without vmap and forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * cotangents[0] if float(cotangents[0].detach().sum()) < 1e9 else cotangents[0]


class OnceSquare(torch.autograd.Function):
    """A function that can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(2 * x.numpy() * cotangents[0].numpy())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("features", [1, 2, 3, 8])
@pytest.mark.parametrize("grad", [True, False])
def test_the_jacobian_of_a_network_is_right_with_and_without_grad_mode(features: int, grad: bool) -> None:
    net = nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, features)).to(FLOAT)
    with torch.set_grad_enabled(grad):
        check(lambda t, y: net(y) * t, torch.randn(4, features, dtype=FLOAT))


def test_rows_that_depend_on_each_other_make_one_block() -> None:
    check(lambda t, y: y * y.mean(0) + t, torch.randn(3, 2, dtype=FLOAT), coupled=True)


def test_a_complex_f_that_is_not_holomorphic_has_its_real_jacobian() -> None:
    check(lambda t, z: z * z.abs() ** 2 + 0.3 * z.conj() * t + 1j * z, torch.randn(3, 2, dtype=COMPLEX))


@pytest.mark.parametrize(
    "f",
    [
        lambda t, y: torch.ones_like(y) * t,
        lambda t, y: torch.ones_like(y) * nn.Parameter(torch.ones(3, dtype=FLOAT)),
        lambda t, y: 0 * y + 1,
    ],
    ids=["without a graph", "of parameters alone", "zero slope"],
)
def test_the_jacobian_is_zero_if_f_does_not_depend_on_the_state(f: Any) -> None:
    y = torch.randn(4, 3, dtype=FLOAT)
    assert jacobian(f, T, y, coupled=False).eq(0).all()
    assert jacobian(f, T, y, coupled=False).shape == (4, 3, 3)
    assert jvp(f, T, y, v=y).eq(0).all()
    assert vjp(f, T, y, w=y).eq(0).all()


def test_an_f_with_a_branch_or_an_old_function_is_differentiated_without_vmap() -> None:
    y = torch.randn(4, 3, dtype=FLOAT)
    check(lambda t, y: y * y if float(y.detach().sum()) > 0 else -y * y, y)
    check(lambda t, y: Square.apply(y), y)


def test_an_f_that_differentiates_inside_is_differentiated() -> None:
    def force(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = y if y.requires_grad else y.detach().requires_grad_()
            return torch.autograd.grad((x**3).sum() + (x[:, 0] * x[:, 1]).sum(), x, create_graph=True)[0]

    check(force, torch.randn(4, 3, dtype=FLOAT))


def test_fused_attention_is_differentiated() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).to(FLOAT)

    def f(t: Tensor, y: Tensor) -> Tensor:
        others = torch.stack([y, 2 * y], 1)
        return attention(y[:, None], others, others, need_weights=False)[0][:, 0]

    check(f, torch.randn(4, 8, dtype=FLOAT))


def test_a_function_that_can_be_differentiated_once_has_a_jacobian_but_no_products() -> None:
    y = torch.randn(4, 3, dtype=FLOAT)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return OnceSquare.apply(y)

    torch.testing.assert_close(jacobian(f, T, y, coupled=False), torch.diag_embed(2 * y))
    with pytest.raises(TypeError, match="f has no products with its Jacobian"):
        jvp(f, T, y, v=y)


def test_inference_mode_is_supported() -> None:
    with torch.inference_mode():
        net = nn.Linear(3, 3).to(FLOAT)  # its parameters cannot enter a graph
        y, t = torch.randn(4, 3, dtype=FLOAT), torch.tensor(0.3)
        wanted = net.weight * y[:, :, None] + torch.diag_embed(net(y))
        found = jacobian(lambda t, y: net(y) * y, t, y, coupled=False)
        plain = jacobian(lambda t, y: y * y * t, t, y, coupled=False)
        one = jacobian(lambda t, y: net(y) * y, t, y, coupled=True)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(plain, torch.diag_embed(0.6 * y), rtol=1e-6, atol=0)
    torch.testing.assert_close(one.reshape(4, 3, 4, 3)[range(4), :, range(4)], wanted)


def test_each_row_may_have_its_time() -> None:
    t = torch.tensor([1.0, 2.0], dtype=FLOAT)
    found = jacobian(lambda t, y: t[:, None] * y, t, torch.ones(2, 2, dtype=FLOAT), coupled=False)
    torch.testing.assert_close(found, t[:, None, None] * torch.eye(2, dtype=FLOAT))


@pytest.mark.parametrize(("rows", "features"), [(0, 3), (2, 0)])
def test_an_empty_state_has_an_empty_jacobian(rows: int, features: int) -> None:
    assert jacobian(lambda t, y: y, T, torch.zeros(rows, features), coupled=False).shape == (rows, features, features)
