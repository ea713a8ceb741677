"""Derivatives of a function of packed rows by its state: the Jacobian, and products with it.

What comes back has no graph. Each is tried the quick way first; an f that the quick way cannot take (an old autograd
function, one that can be differentiated once) is differentiated another way.

A complex state counts as twice as many real numbers, real and imaginary part by turns, so that an f that is not
holomorphic has its Jacobian like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (t, y) -> dy/dt, on packed rows
Rows: TypeAlias = Shaped[Tensor, "rows features"]

FEW = 2  # up to this many products are quicker one after another than as a batch


def jacobian(f: Function, t: Tensor, y: Rows, coupled: bool) -> Float[Tensor, "blocks n n"]:
    """∂f/∂y as dense blocks.

    Parameters
    ----------
    f : callable
        ``f(t, y)`` on packed rows.
    t : Tensor
        The time, 0-d or one a row.
    y : Tensor[rows, features]
        The state.
    coupled : bool
        Whether rows of f depend on other rows of y. If not, each row has a block of its own, and the products that
        give them are taken for all rows at once.

    Returns
    -------
    Tensor
        [rows, n, n] with n the real numbers in a row (twice the features of a complex state), or, coupled, one block
        [1, rows · n, rows · n].

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
        with _watched(f, t, y) as (x, answer):
            rows = _products(answer, x, basis) if answer.requires_grad and basis.numel() else torch.zeros_like(basis)
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        # what f holds was made in inference mode and may enter no graph: columns by forward mode, which has none
        columns = [_as_real(jvp(f, t, y, _like(one, y))) for one in basis]
        return _blocks(torch.stack(columns), coupled).mT
    return _blocks(rows, coupled)


def vjp(f: Function, t: Tensor, y: Rows, w: Rows) -> Rows:
    """(∂f/∂y)ᵀ w, as backpropagation has it.

    Examples
    --------
    >>> swap = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> vjp(lambda t, y: y @ swap.T, torch.tensor(0.0), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0., 1.]])
    """
    with _watched(f, t, y) as (x, answer):
        return _like(_pull(answer, x, _as_real(_plain(w))), y)


def jvp(f: Function, t: Tensor, y: Rows, v: Rows) -> Rows:
    """∂f/∂y v; `Linearised` is for many of them at one place.

    Raises
    ------
    TypeError
        If f has no such product.

    Examples
    --------
    >>> swap = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> jvp(lambda t, y: y @ swap.T, torch.tensor(0.0), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0., 2.]])
    """
    return Linearised(f, t, y).jvp(v)


class Linearised:
    """f near one state: products with its Jacobian there, of one evaluation.

    Products J v are derivatives of Jᵀ w by w, which is linear in it: two passes back, of which the second is made for
    each v. This is quicker than forward mode, which evaluates f again with each, by 4 to 100 times (torch 2.13, CPU).

    Examples
    --------
    >>> near = Linearised(lambda t, y: y * y, torch.tensor(0.0), torch.tensor([[1.0, 2.0]]))
    >>> near.jvp(torch.tensor([[1.0, 1.0]])), near.vjp(torch.tensor([[0.0, 3.0]]))
    (tensor([[2., 4.]]), tensor([[ 0., 12.]]))
    """

    def __init__(self, f: Function, t: Tensor, y: Rows) -> None:
        self.f, self.t, self.y = f, t, y
        self.reason: Exception | str = "it has no graph"
        self.pulled: Tensor | None = None
        try:
            # the fused kernels of attention know one derivative only
            with sdpa_kernel(SDPBackend.MATH), _watched(f, t, y) as (self.x, self.answer), torch.enable_grad():
                self.cotangent = torch.zeros_like(self.answer, requires_grad=True)
                self.pulled = _pull(self.answer, self.x, self.cotangent, create_graph=True)
        except RuntimeError as error:
            self.reason = error  # something of inference mode

    def vjp(self, w: Rows) -> Rows:
        """(∂f/∂y)ᵀ w."""
        if self.pulled is None:
            return vjp(self.f, self.t, self.y, w)
        with _plain_mode():
            return _like(_pull(self.answer, self.x, _as_real(_plain(w))), self.y)

    def jvp(self, v: Rows) -> Rows:
        """∂f/∂y v."""
        if self.pulled is not None and self.pulled.requires_grad:
            try:
                with _plain_mode():  # a backward without a derivative has cut the cotangent off: that is no zero
                    direction = _as_real(_plain(v))
                    (product,) = torch.autograd.grad(self.pulled, self.cotangent, direction, retain_graph=True)
                return _like(product, self.y)
            except RuntimeError as error:
                self.reason, self.pulled = error, None  # a function that can be differentiated once
        return self._forward(v)

    def _forward(self, v: Rows) -> Rows:
        """In forward mode."""
        with _plain_mode(), torch.no_grad():
            at, x, y = _plain(self.t), _as_real(_plain(self.y)), self.y
            try:
                product = torch.func.jvp(lambda x: _as_real(self.f(at, _like(x, y))), (x,), (_as_real(_plain(v)),))[1]
            except RuntimeError as error:
                raise TypeError(
                    "f has no products with its Jacobian: neither has its backward a derivative "
                    f"({str(self.reason).splitlines()[0]}) nor has f a forward mode ({str(error).splitlines()[0]}). A "
                    "large implicit system needs them; wanted an f of differentiable torch operations, or a method "
                    "whose dense_limit is at least the size of a row."
                ) from error
        return _like(product, y)


@contextmanager
def _plain_mode() -> Iterator[None]:
    """Outside of inference mode, which keeps nothing that a derivative needs."""
    with torch.inference_mode(False):
        yield


@contextmanager
def _watched(f: Function, t: Tensor, y: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """A real view of y as a leaf, and f of it."""
    with _plain_mode():
        at = _plain(t)
        with torch.enable_grad():
            x = _as_real(_plain(y)).requires_grad_()
            answer = _as_real(f(at, _like(x, y)))
        yield x, answer


def _basis(x: Tensor, coupled: bool) -> Float[Tensor, "n rows features"]:
    """Unit vectors: of the whole state, or of every row at once."""
    if coupled:
        return torch.eye(x.numel(), dtype=x.dtype, device=x.device).reshape(-1, *x.shape)
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None].expand(-1, *x.shape)


def _blocks(products: Float[Tensor, "n rows features"], coupled: bool) -> Float[Tensor, "blocks n n"]:
    """One product a row of the block."""
    return products.flatten(1)[None] if coupled else products.transpose(0, 1)


def _products(answer: Tensor, x: Tensor, basis: Tensor) -> Tensor:
    """The vector–Jacobian product with each of some cotangents."""
    if len(basis) > FEW:
        try:
            return _pull(answer, x, basis, is_grads_batched=True)
        except RuntimeError:
            pass  # a backward that cannot be batched; if f itself is at fault, that is found below
    return torch.stack([_pull(answer, x, one) for one in basis])


def _pull(answer: Tensor, x: Tensor, cotangents: Tensor, **options: bool) -> Tensor:
    """One backward of an evaluation that has been made or, batched, `torch.func.vmap` over it."""
    if not answer.requires_grad:
        return torch.zeros_like(x)
    (product,) = torch.autograd.grad(answer, x, cotangents, retain_graph=True, allow_unused=True, **options)
    return torch.zeros_like(cotangents if options.get("is_grads_batched") else x) if product is None else product


def _plain(x: Tensor) -> Tensor:
    """Without history; a tensor of inference mode is copied, which lets it enter a graph."""
    return x.clone() if x.is_inference() else x.detach()


def _as_real(rows: Tensor) -> Tensor:
    return torch.view_as_real(rows.resolve_conj()).flatten(1) if rows.is_complex() else rows


def _like(rows: Tensor, y: Tensor) -> Tensor:
    return torch.view_as_complex(rows.unflatten(1, (y.shape[1], 2)).contiguous()) if y.is_complex() else rows
