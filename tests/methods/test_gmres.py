"""Batched GMRES: against the dense solver, block by block, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralode.methods.implicit.gmres import Inverse, gmres


def matrices(blocks: int, n: int, dtype: torch.dtype = torch.float64, spread: float = 0.5) -> Tensor:
    draw = torch.Generator().manual_seed(blocks + 7 * n)
    noise = torch.randn(blocks, n, n, generator=draw, dtype=dtype)
    return torch.eye(n, dtype=dtype) + spread * noise / n**0.5


def vectors(blocks: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(blocks, n, generator=torch.Generator().manual_seed(n), dtype=dtype)


def times(a: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: (a * x[:, None]).sum(-1)


@pytest.mark.parametrize(("blocks", "n"), [(1, 1), (3, 2), (5, 20), (4, 100), (2, 300)])
def test_the_solution_equals_that_of_the_dense_solver(blocks: int, n: int) -> None:
    a, b = matrices(blocks, n), vectors(blocks, n)
    found = gmres(times(a), b, 1e-12)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=1e-9, atol=1e-10)
    assert (found.residual <= 1e-12).all()
    residual = torch.linalg.vector_norm(b - times(a)(found.x), dim=1) / torch.linalg.vector_norm(b, dim=1)
    assert (residual < 1e-11).all()


def test_it_converges_after_restarts() -> None:
    a, b = matrices(3, 60), vectors(3, 60)
    found = gmres(times(a), b, 1e-10, restart=5)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=1e-7, atol=1e-8)
    assert (found.products > 10).all()


def test_a_looser_tolerance_needs_fewer_products() -> None:
    a, b = matrices(3, 60), vectors(3, 60)
    loose, tight = gmres(times(a), b, 1e-3), gmres(times(a), b, 1e-10)
    assert (loose.products < tight.products).all()
    residual = torch.linalg.vector_norm(b - times(a)(loose.x), dim=1) / torch.linalg.vector_norm(b, dim=1)
    assert (residual <= 1e-3).all()


@pytest.mark.parametrize("n", [3, 70, 200])
def test_a_block_has_the_same_bits_alone(n: int) -> None:
    spread = torch.tensor([0.1, 0.9, 0.5, 0.0])[:, None, None].to(torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    a, b = eye + (matrices(4, n) - eye) * spread, vectors(4, n)
    together = gmres(times(a), b, 1e-9, restart=10)
    assert len(set(together.products.tolist())) > 1
    for i in range(4):
        alone = gmres(times(a[i : i + 1]), b[i : i + 1], 1e-9, restart=10)
        assert torch.equal(together.x[i], alone.x[0])
        assert together.products[i] == alone.products[0]


def test_inactive_blocks_and_zero_right_hand_sides_give_zero_without_products() -> None:
    a, b = matrices(3, 5), vectors(3, 5)
    b[1] = 0
    found = gmres(times(a), b, 1e-10, active=torch.tensor([True, True, False]))
    torch.testing.assert_close(found.x[0], torch.linalg.solve(a[0], b[0]))
    assert found.x[1:].eq(0).all()
    assert found.products.tolist()[1:] == [0, 0]


def test_a_singular_block_reports_its_residual_and_leaves_others_unchanged() -> None:
    a, b = matrices(2, 4), vectors(2, 4)
    a[0] = 0
    found = gmres(times(a), b, 1e-10)
    assert found.residual[0] == 1
    assert found.x[0].isfinite().all()
    torch.testing.assert_close(found.x[1], torch.linalg.solve(a[1], b[1]))


def test_it_converges_in_single_precision() -> None:
    a, b = matrices(4, 40, torch.float32), vectors(4, 40, torch.float32)
    found = gmres(times(a), b, 1e-6)
    assert found.x.dtype == torch.float32
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=1e-4, atol=1e-5)


def test_the_inverse_has_first_and_second_derivatives() -> None:
    a = matrices(2, 6)
    inverse = Inverse(times(a), times(a.mT))
    b = vectors(2, 6).requires_grad_()

    def solved(b: Tensor) -> Tensor:
        return inverse(b, 1e-13, 1e-13) ** 2  # squared, because the inverse is linear and has no second derivative

    assert gradcheck(solved, b)
    assert gradgradcheck(solved, b)
