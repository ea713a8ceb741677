r"""The divergence of a field, :math:`\nabla\cdot f = \operatorname{tr}\,\partial f/\partial x`, exact or estimated.

It is the rate at which the log-density of a flow falls along a path: d log p / dt = −∇·f (Chen et al. 2018, theorem 1).
All methods use products of the Jacobian with a few vectors, which one pass computes together with f.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.registry import pick
from neuralode.nn.flows.jacobian_products import MODES, State, Vectors, products
from neuralode.nn.flows.random_numbers import random_like


class Rates(NamedTuple):
    """A field, its divergence and the norm of its Jacobian at one (t, x).

    Attributes
    ----------
    value : Tensor[batch, *event]
        f(t, x).
    divergence : Tensor[batch]
        The trace of the Jacobian, or an unbiased estimate of it.
    frobenius : Tensor[batch]
        The squared Frobenius norm of the Jacobian, or an unbiased estimate of it.
    """

    value: State
    divergence: Float[Tensor, " batch"]
    frobenius: Float[Tensor, " batch"]


class Divergence(Protocol):
    """A method that computes or estimates the divergence of a field."""

    name: str

    def draw(
        self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Draw the random numbers of one solve at its start: tensors [vectors, batch, *event]."""
        ...

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple[Tensor, ...]) -> Rates:
        """Return the field, its divergence and the norm of its Jacobian at (t, x), with the numbers of `draw`."""
        ...


@dataclass(frozen=True)
class Exact:
    """The exact divergence, from one product for each number of the state.

    Parameters
    ----------
    mode : {"forward", "reverse"}, default="forward"
        How products are computed: see `products`.

    Raises
    ------
    ValueError
        If ``mode`` is unknown.

    Examples
    --------
    >>> A = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> rates = Exact().rates(lambda t, x: x @ A.T, torch.tensor(0.0), torch.ones(1, 2), (), ())
    >>> rates.divergence.item(), rates.frobenius.item()  # 1 + 4, 1 + 4 + 9 + 16
    (5.0, 30.0)
    """

    mode: Literal["forward", "reverse"] = "forward"

    name = "exact"

    def __post_init__(self) -> None:
        pick("mode", self.mode, MODES, kind=())

    def draw(
        self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Return no tensors: nothing is random."""
        return ()

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple[Tensor, ...]) -> Rates:
        """Return the rates from the products with every unit vector."""
        features = math.prod(x.shape[1:])
        basis = torch.eye(features, dtype=x.dtype, device=x.device).view(features, 1, *x.shape[1:])
        value, columns = products(field, t, x, vectors=basis, args=args, mode=self.mode)
        jacobian = columns.flatten(2)  # [features, batch, features]
        return Rates(value, jacobian.diagonal(dim1=0, dim2=2).sum(-1), jacobian.square().sum((0, 2)))


@dataclass(frozen=True)
class Hutchinson:
    r"""Hutchinson's estimate :math:`\varepsilon^\top J\varepsilon`, averaged over probes: unbiased, one product each.

    The probes are constant during one solve, so that the integrand is smooth (Grathwohl et al., *FFJORD*, 2019).

    Parameters
    ----------
    probes : int, default=1
        The number of random vectors ε.
    noise : {"rademacher", "gaussian"}, default="rademacher"
        Random signs, with the least variance, or normal numbers.
    mode : {"forward", "reverse"}, default="forward"
        How products are computed: see `products`.

    Raises
    ------
    ValueError
        If an argument is unknown or below 1.

    Examples
    --------
    >>> A = torch.diag(torch.tensor([1.0, 4.0]))  # signs give the exact trace of a diagonal Jacobian
    >>> field, t, x = (lambda t, x: x @ A), torch.tensor(0.0), torch.ones(1, 2)
    >>> method = Hutchinson()
    >>> method.rates(field, t, x, (), method.draw(field, t, x, ())).divergence.item()
    5.0
    """

    probes: int = 1
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["forward", "reverse"] = "forward"

    name = "hutchinson"

    def __post_init__(self) -> None:
        _check_count("probes", self.probes)
        pick("noise", self.noise, NOISES, kind=())
        pick("mode", self.mode, MODES, kind=())

    def draw(
        self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Draw the probes [probes, batch, *event]."""
        return (NOISES[self.noise]((self.probes, *x.shape), x, generator),)

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple[Tensor, ...]) -> Rates:
        """Return the rates from one product for each probe."""
        (probes,) = drawn
        value, along = products(field, t, x, vectors=probes, args=args, mode=self.mode)
        return Rates(value, _inner(probes, along).mean(0), _inner(along, along).mean(0))


@dataclass(frozen=True)
class HutchPlusPlus:
    r"""Hutch++: the exact trace on a subspace where the Jacobian is large, Hutchinson's estimate on its complement.

    With orthonormal Q in the range of J, tr J = tr QᵀJQ + tr (I − QQᵀ) J (I − QQᵀ). The first term is exact. The
    variance falls as the square of that of Hutchinson's estimate (Meyer, Musco, Musco & Woodruff, *Hutch++*, 2021). Q
    is computed at the start of a solve and stays constant, as the probes do: the estimate is unbiased for every Q that
    is independent of the probes, and a constant Q makes it a smooth function of the state.

    Parameters
    ----------
    sketch : int, default=1
        The dimension of the subspace; the trace is exact if it equals that of the state.
    probes : int, default=1
        The number of random vectors for the complement.
    noise : {"rademacher", "gaussian"}, default="rademacher"
        The distribution of the probes. Normal numbers select the subspace.
    mode : {"forward", "reverse"}, default="forward"
        How products are computed: see `products`.

    Raises
    ------
    ValueError
        If an argument is unknown or below 1.

    Examples
    --------
    >>> A = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    >>> field, t, x = (lambda t, x: x @ A.T), torch.tensor(0.0), torch.ones(1, 2, dtype=torch.float64)
    >>> method = HutchPlusPlus(sketch=2)
    >>> round(method.rates(field, t, x, (), method.draw(field, t, x, ())).divergence.item(), 6)
    5.0
    """

    sketch: int = 1
    probes: int = 1
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["forward", "reverse"] = "forward"

    name = "hutch++"

    def __post_init__(self) -> None:
        _check_count("sketch", self.sketch)
        _check_count("probes", self.probes)
        pick("noise", self.noise, NOISES, kind=())
        pick("mode", self.mode, MODES, kind=())

    def draw(
        self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Return Q [sketch, batch, *event], and probes [probes, batch, *event] in its complement."""
        count = min(self.sketch, math.prod(x.shape[1:]))
        with torch.no_grad():
            directions = _gaussian((count, *x.shape), x, generator)
            _, image = products(field, t, x, vectors=directions, args=args, mode=self.mode)
            columns = image.flatten(2).permute(1, 2, 0)
            precise = columns.to(torch.promote_types(x.dtype, torch.float32))
            basis = torch.linalg.qr(precise).Q.to(x.dtype).permute(2, 0, 1)  # [count, batch, features]
            probes = NOISES[self.noise]((self.probes, *x.shape), x, generator).flatten(2)
            components = torch.einsum("pbf,qbf->pqb", probes, basis)
            rest = probes - torch.einsum("pqb,qbf->pbf", components, basis)
        return basis.reshape(count, *x.shape), rest.reshape(self.probes, *x.shape)

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple[Tensor, ...]) -> Rates:
        """Return the rates from one product for each direction of Q and each probe."""
        basis, rest = drawn
        value, along = products(field, t, x, vectors=torch.cat(drawn), args=args, mode=self.mode)
        along_basis, along_rest = along.split([len(basis), len(rest)])
        trace = _inner(basis, along_basis).sum(0) + _inner(rest, along_rest).mean(0)
        return Rates(value, trace, _inner(along_basis, along_basis).sum(0) + _inner(along_rest, along_rest).mean(0))


def find_divergence(divergence: str | Divergence) -> Divergence:
    """Return a divergence method by its name, or the given one: any object with ``draw`` and ``rates``.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or the name is unknown.

    Examples
    --------
    >>> find_divergence("hutchinson")
    Hutchinson(probes=1, noise='rademacher', mode='forward')
    """
    is_method = not isinstance(divergence, str) and all(hasattr(divergence, name) for name in ("draw", "rates"))
    return pick("divergence", divergence, DIVERGENCES, kind=type(divergence) if is_method else ())


def _rademacher(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    uniform = random_like(torch.rand, shape, like=like, generator=generator)
    return torch.where(uniform < 0.5, -1.0, 1.0).to(like.dtype)


def _gaussian(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return random_like(torch.randn, shape, like=like, generator=generator)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}; wanted a whole number of at least 1.")


NOISES = {"rademacher": _rademacher, "gaussian": _gaussian}
DIVERGENCES: dict[str, Divergence] = {method.name: method for method in (Exact(), Hutchinson(), HutchPlusPlus())}


def _inner(a: Vectors, b: Vectors) -> Float[Tensor, "vectors batch"]:
    return (a * b).flatten(2).sum(-1)
