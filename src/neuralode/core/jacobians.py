"""Derivatives of a function of packed rows by its state: the Jacobian and products with it.

Results have no graph. Each function tries the fastest way first, and falls back where f does not support it: an old
autograd function, or one that can be differentiated only once.

A complex state is treated as twice as many real numbers, real and imaginary parts interleaved, so that an f that is not
holomorphic has a Jacobian too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (t, y) -> dy/dt, on packed rows
Rows: TypeAlias = Shaped[Tensor, "rows features"]

MIN_BATCH = 3  # fewer vector–Jacobian products are faster one by one


def jacobian(f: Function, t: Tensor, y: Rows, *, coupled: bool) -> Float[Tensor, "blocks n n"]:
    """Return ∂f/∂y as dense blocks.

    Parameters
    ----------
    f : callable
        ``f(t, y)`` on packed rows.
    t : Tensor
        The time: 0-d, or [rows].
    y : Tensor[rows, features]
        The state.
    coupled : bool
        Whether rows of f depend on other rows of y. If not, each row has a block, and all blocks are computed at once.

    Returns
    -------
    Tensor
        [rows, n, n], with n the number of real numbers in a row (twice the features of a complex state); if
        ``coupled``, one block [1, rows * n, rows * n].

    Examples
    --------
    >>> jacobian(lambda t, y: y * y, torch.tensor(0.0), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), coupled=False)
    tensor([[[2., 0.],
             [0., 4.]],
            [[6., 0.],
             [0., 8.]]])
    """
    basis = _basis(_as_real(y), coupled)
    try:
        with _evaluated(f, t, y) as (x, value):
            rows = _products(value, x, basis) if value.requires_grad and basis.numel() else torch.zeros_like(basis)
    except RuntimeError as error:
        if not _is_of_inference_mode(error):
            raise
        # f holds inference tensors, which cannot enter a graph: compute columns in forward mode, which has none.
        linearised = Linearised(f, t, y)
        columns = [_as_real(linearised.jvp(_like(one, y))) for one in basis]
        return _blocks(torch.stack(columns), coupled).mT
    return _blocks(rows, coupled)


def vjp(f: Function, t: Tensor, y: Rows, *, w: Rows) -> Rows:
    """Return the vector–Jacobian product (∂f/∂y)ᵀ w.

    Examples
    --------
    >>> swap = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> vjp(lambda t, y: y @ swap.T, torch.tensor(0.0), torch.zeros(1, 2), w=torch.tensor([[1.0, 0.0]]))
    tensor([[0., 1.]])
    """
    with _evaluated(f, t, y) as (x, value):
        return _like(_pull(value, x, _as_real(_plain(w))), y)


def jvp(f: Function, t: Tensor, y: Rows, *, v: Rows) -> Rows:
    """Return the Jacobian–vector product ∂f/∂y v. For several at one state, use `Linearised`.

    Raises
    ------
    TypeError
        If f supports no Jacobian–vector products.

    Examples
    --------
    >>> swap = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> jvp(lambda t, y: y @ swap.T, torch.tensor(0.0), torch.zeros(1, 2), v=torch.tensor([[1.0, 0.0]]))
    tensor([[0., 2.]])
    """
    return Linearised(f, t, y).jvp(v)


class _Pullback(NamedTuple):
    """The product Jᵀ w as a differentiable function of w, to be differentiated by it."""

    product: Tensor
    w: Tensor


class Linearised:
    """f linearised at one state: products with its Jacobian there, from one evaluation.

    The product J v is the derivative of Jᵀ w by w, in which it is linear: two backward passes, of which only the
    second depends on v. It is 4 to 100 times faster than forward mode, which evaluates f for each v (torch 2.13, CPU).

    Examples
    --------
    >>> linearised = Linearised(lambda t, y: y * y, torch.tensor(0.0), torch.tensor([[1.0, 2.0]]))
    >>> linearised.jvp(torch.tensor([[1.0, 1.0]])), linearised.vjp(torch.tensor([[0.0, 3.0]]))
    (tensor([[2., 4.]]), tensor([[ 0., 12.]]))
    """

    def __init__(self, f: Function, t: Tensor, y: Rows) -> None:
        self.f, self.t, self.y = f, t, y
        self.reason: Exception | str = "it has no graph"  # why the double backward pass fails
        self.pullback: _Pullback | None = None
        try:
            # The fused kernels of attention have first derivatives only.
            with sdpa_kernel(SDPBackend.MATH), _evaluated(f, t, y) as (self.x, self.value), torch.enable_grad():
                w = torch.zeros_like(self.value, requires_grad=True)
                self.pullback = _Pullback(_pull(self.value, self.x, w, create_graph=True), w)
        except RuntimeError as error:
            self.reason = error  # f holds inference tensors

    def vjp(self, w: Rows) -> Rows:
        """Return (∂f/∂y)ᵀ w."""
        if self.pullback is None:
            return vjp(self.f, self.t, self.y, w=w)
        with _outside_inference_mode():
            return _like(_pull(self.value, self.x, _as_real(_plain(w))), self.y)

    def jvp(self, v: Rows) -> Rows:
        """Return ∂f/∂y v."""
        if self.pullback is not None and self.pullback.product.requires_grad:
            try:
                # Not allow_unused: a backward without a derivative disconnects w, and the product is not zero.
                with _outside_inference_mode():
                    direction = _as_real(_plain(v))
                    (product,) = torch.autograd.grad(*self.pullback, direction, retain_graph=True)
                return _like(product, self.y)
            except RuntimeError as error:
                self.reason, self.pullback = error, None  # f can be differentiated only once
        return self._forward_mode(v)

    def _forward_mode(self, v: Rows) -> Rows:
        with _outside_inference_mode(), torch.no_grad():
            t, x, y = _plain(self.t), _as_real(_plain(self.y)), self.y
            try:
                product = torch.func.jvp(lambda x: _as_real(self.f(t, _like(x, y))), (x,), (_as_real(_plain(v)),))[1]
            except RuntimeError as error:
                raise TypeError(
                    "f has no products with its Jacobian: its backward pass has no derivative "
                    f"({str(self.reason).splitlines()[0]}), and f has no forward mode ({str(error).splitlines()[0]}). "
                    "Large implicit systems need them; wanted an f of differentiable torch operations, or a method "
                    "whose dense_limit is at least the size of a row."
                ) from error
        return _like(product, y)


@contextmanager
def _outside_inference_mode() -> Iterator[None]:
    """Leave inference mode, in which no graph can be built."""
    with torch.inference_mode(False):
        yield


@contextmanager
def _evaluated(f: Function, t: Tensor, y: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a real view of y as a leaf of a graph, and the value of f there."""
    with _outside_inference_mode():
        t = _plain(t)
        with torch.enable_grad():
            x = _as_real(_plain(y)).requires_grad_()
            value = _as_real(f(t, _like(x, y)))
        yield x, value


def _is_of_inference_mode(error: RuntimeError) -> bool:
    return "nference tensor" in str(error)


def _basis(x: Tensor, coupled: bool) -> Float[Tensor, "n rows features"]:
    """Return the unit vectors of the whole state, or of each row, for all rows at once."""
    if coupled:
        return torch.eye(x.numel(), dtype=x.dtype, device=x.device).reshape(-1, *x.shape)
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None].expand(-1, *x.shape)


def _blocks(products: Float[Tensor, "n rows features"], coupled: bool) -> Float[Tensor, "blocks n n"]:
    """Arrange products with unit vectors as the rows of blocks."""
    return products.flatten(1)[None] if coupled else products.transpose(0, 1)


def _products(value: Tensor, x: Tensor, basis: Tensor) -> Tensor:
    """Return the vector–Jacobian products with all vectors of a basis."""
    if len(basis) >= MIN_BATCH:
        try:
            return _pull(value, x, basis, is_grads_batched=True)
        except RuntimeError:
            pass  # A backward that vmap does not support. An error of f itself is raised again below.
    return torch.stack([_pull(value, x, one) for one in basis])


def _pull(value: Tensor, x: Tensor, cotangents: Tensor, **options: bool) -> Tensor:
    """Return the vector–Jacobian product of an evaluation, by `torch.autograd.grad` with these options."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (product,) = torch.autograd.grad(value, x, cotangents, retain_graph=True, allow_unused=True, **options)
    return torch.zeros_like(cotangents if options.get("is_grads_batched") else x) if product is None else product


def _plain(x: Tensor) -> Tensor:
    """Detach; copy inference tensors, so that they can enter a graph."""
    return x.clone() if x.is_inference() else x.detach()


def _as_real(rows: Tensor) -> Tensor:
    return torch.view_as_real(rows.resolve_conj()).flatten(1) if rows.is_complex() else rows


def _like(rows: Tensor, y: Tensor) -> Tensor:
    """Return real rows as rows of the dtype of y."""
    return torch.view_as_complex(rows.unflatten(1, (y.shape[1], 2)).contiguous()) if y.is_complex() else rows
