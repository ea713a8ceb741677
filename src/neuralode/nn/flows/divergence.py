r"""The divergence of a field, :math:`\nabla\cdot f = \operatorname{tr}\,\partial f/\partial x`: exact or estimated.

It is how fast a flow thins out what it carries: along a path, d log p / dt = −∇·f (Chen et al. 2018, theorem 1). All
ways rest on products of the Jacobian with a few vectors, taken together with f itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.registry import pick
from neuralode.nn.flows.base_distribution import drawn as random_numbers

State: TypeAlias = Float[Tensor, "batch *event"]
Vectors: TypeAlias = Float[Tensor, "vectors #batch *event"]


class Rates(NamedTuple):
    """What a field does at (t, x).

    Attributes
    ----------
    value : Tensor[batch, *event]
        f itself.
    divergence : Tensor[batch]
        The trace of its Jacobian, or an unbiased estimate of it.
    frobenius : Tensor[batch]
        The square of the Frobenius norm of its Jacobian, or an unbiased estimate.
    """

    value: State
    divergence: Float[Tensor, " batch"]
    frobenius: Float[Tensor, " batch"]


class Divergence(Protocol):
    """A way to come by the divergence."""

    name: str

    def draw(
        self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """What is random, drawn once for a whole solve: tensors [vectors, batch, *event]."""
        ...

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple[Tensor, ...]) -> Rates:
        """The field, its divergence and the norm of its Jacobian at (t, x)."""
        ...


@dataclass(frozen=True)
class Exact:
    """The trace itself, from as many products as the state has numbers.

    Parameters
    ----------
    mode : {"forward", "reverse"}
        How products are taken: see `products`.

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
        pick("mode", self.mode, MODES, ())

    def draw(self, field: Any, t: Tensor, x: State, args: tuple, generator: Any = None) -> tuple[Tensor, ...]:
        """Nothing is random."""
        return ()

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple) -> Rates:
        """From the products with every unit vector."""
        features = math.prod(x.shape[1:])
        basis = torch.eye(features, dtype=x.dtype, device=x.device).view(features, 1, *x.shape[1:])
        value, found = products(field, t, x, basis, args, self.mode)
        rows = found.flatten(2)
        return Rates(value, rows.diagonal(dim1=0, dim2=2).sum(-1), rows.square().sum((0, 2)))


@dataclass(frozen=True)
class Hutchinson:
    r"""Hutchinson's estimate :math:`\varepsilon^\top J\varepsilon`, averaged over probes: unbiased, one product each.

    The probes stay the same over one solve, so that what is integrated is smooth (Grathwohl et al., *FFJORD*, 2019).

    Parameters
    ----------
    probes : int
        How many vectors.
    noise : {"rademacher", "gaussian"}
        Signs, whose estimate varies least, or normal numbers.
    mode : {"forward", "reverse"}
        How products are taken: see `products`.

    Examples
    --------
    >>> A = torch.diag(torch.tensor([1.0, 4.0]))  # of a diagonal Jacobian signs give the trace itself
    >>> field, t, x = (lambda t, x: x @ A), torch.tensor(0.0), torch.ones(1, 2)
    >>> way = Hutchinson()
    >>> way.rates(field, t, x, (), way.draw(field, t, x, ())).divergence.item()
    5.0
    """

    probes: int = 1
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["forward", "reverse"] = "forward"

    name = "hutchinson"

    def __post_init__(self) -> None:
        _check_count("probes", self.probes)
        pick("noise", self.noise, NOISES, ())
        pick("mode", self.mode, MODES, ())

    def draw(
        self, field: Any, t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """The probes."""
        return (NOISES[self.noise]((self.probes, *x.shape), x, generator),)

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple) -> Rates:
        """From one product a probe."""
        value, found = products(field, t, x, drawn[0], args, self.mode)
        return Rates(value, _inner(drawn[0], found).mean(0), _inner(found, found).mean(0))


@dataclass(frozen=True)
class HutchPlusPlus:
    r"""Hutch++: the trace on a few directions in which the Jacobian is large, and Hutchinson's estimate of the rest.

    With orthonormal Q in the range of J: tr J = tr QᵀJQ + tr (I − QQᵀ) J (I − QQᵀ), exactly for the first part; its
    variance falls as the square of that of Hutchinson's (Meyer, Musco, Musco & Woodruff, *Hutch++*, 2021). Q is found
    where a solve begins and kept over it, as the probes are: any Q that does not depend on the probes leaves the
    estimate unbiased, and with a constant one it is a smooth function with the gradient that is computed.

    Parameters
    ----------
    sketch : int
        Directions in Q; with as many as the state has numbers the trace is exact.
    probes : int
        For the rest.
    noise : {"rademacher", "gaussian"}
        Of the probes. Directions are found by normal numbers.
    mode : {"forward", "reverse"}
        How products are taken: see `products`.

    Examples
    --------
    >>> A = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    >>> field, t, x = (lambda t, x: x @ A.T), torch.tensor(0.0), torch.ones(1, 2, dtype=torch.float64)
    >>> way = HutchPlusPlus(sketch=2)
    >>> round(way.rates(field, t, x, (), way.draw(field, t, x, ())).divergence.item(), 6)
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
        pick("noise", self.noise, NOISES, ())
        pick("mode", self.mode, MODES, ())

    def draw(
        self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Q, and probes in its complement."""
        noise = NOISES[self.noise]
        count = min(self.sketch, math.prod(x.shape[1:]))
        with torch.no_grad():
            _, image = products(field, t, x, NOISES["gaussian"]((count, *x.shape), x, generator), args, self.mode)
            columns = image.flatten(2).permute(1, 2, 0)
            precise = columns.to(torch.promote_types(x.dtype, torch.float32))
            basis = torch.linalg.qr(precise).Q.to(x.dtype).permute(2, 0, 1)  # [count, batch, features]
            probes = noise((self.probes, *x.shape), x, generator).flatten(2)
            inside = torch.einsum("pbf,qbf->pqb", probes, basis)
            rest = probes - torch.einsum("pqb,qbf->pbf", inside, basis)
        return basis.reshape(count, *x.shape), rest.reshape(self.probes, *x.shape)

    def rates(self, field: Callable[..., Tensor], t: Tensor, x: State, args: tuple, drawn: tuple) -> Rates:
        """From a product for each direction and each probe."""
        basis, rest = drawn
        value, found = products(field, t, x, torch.cat(drawn), args, self.mode)
        of_basis, of_rest = found.split([len(basis), len(rest)])
        trace = _inner(basis, of_basis).sum(0) + _inner(rest, of_rest).mean(0)
        return Rates(value, trace, _inner(of_basis, of_basis).sum(0) + _inner(of_rest, of_rest).mean(0))


def products(
    field: Callable[..., Tensor], t: Tensor, x: State, vectors: Vectors, args: tuple, mode: str = "forward"
) -> tuple[State, Vectors]:
    """f(t, x), and the products of its Jacobian, row by row, with each of the vectors.

    Parameters
    ----------
    field : callable
        ``field(t, x, *args)``, whose rows do not depend on each other. One that knows its own derivative declares it as
        a method ``jvp(t, x, vectors, *args)`` that returns both, for vectors of either shape; it is several times
        cheaper. A class that changes ``forward`` and not ``jvp`` does not know its own.
    t, x, args
        Where.
    vectors : Tensor[vectors, batch, *event] or [vectors, 1, *event]
        With what; the same for all rows where there is one of each.
    mode : {"forward", "reverse"}
        "forward" gives J v by `torch.func.jvp`. "reverse" gives vᵀJ by `torch.func.vjp`, for operations without forward
        derivatives (to train, they have to be differentiable twice); traces and Frobenius norms can be taken from
        either.

    Raises
    ------
    NotImplementedError
        For a field with an operation that cannot be differentiated so; the sentence says what to try.

    Examples
    --------
    >>> value, found = products(lambda t, x: x**2, torch.tensor(0.0), torch.full((1, 1), 3.0), torch.ones(1, 1, 1), ())
    >>> value.item(), found.item()
    (9.0, 6.0)
    """
    if mode == "forward" and _knows_its_derivative(type(field)):
        value, found = field.jvp(t, x, vectors, *args)  # type: ignore[attr-defined]
        return value, found.expand(-1, *x.shape)
    vectors = vectors.expand(-1, *x.shape)

    def at(z: Tensor) -> Tensor:
        return field(t, z, *args)

    along: Any = lambda v: torch.func.jvp(at, (x,), (v,))  # noqa: E731
    unmapped: Any = (None, 0)  # the value is the same for all vectors
    try:
        if mode == "reverse":
            value, pull, *_ = torch.func.vjp(at, x)
            return value, torch.func.vmap(lambda v: pull(v)[0], randomness="same")(vectors)
        return torch.func.vmap(along, out_dims=unmapped, randomness="same")(vectors)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"field has an operation that torch cannot differentiate in {mode} mode: "
            f"{str(error).splitlines()[0][:120]}. Try attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH), "
            "or the other mode of the divergence, as in Exact(mode='reverse')."
        ) from error


@lru_cache(maxsize=256)
def _knows_its_derivative(kind: type) -> bool:
    """Whether ``jvp`` is declared, and not by an ancestor of the class that says what the field is."""
    order = {name: place for place, one in reversed(list(enumerate(kind.__mro__))) for name in vars(one)}
    return "jvp" in order and order["jvp"] <= order.get("forward", order.get("__call__", len(order)))


def find_divergence(divergence: str | Divergence) -> Divergence:
    """A way by its name, or the one that was given: whatever has ``draw`` and ``rates``.

    Examples
    --------
    >>> find_divergence("hutchinson")
    Hutchinson(probes=1, noise='rademacher', mode='forward')
    """
    own = not isinstance(divergence, str) and all(hasattr(divergence, name) for name in ("draw", "rates"))
    return pick("divergence", divergence, DIVERGENCES, type(divergence) if own else ())


def _rademacher(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.where(random_numbers(torch.rand, shape, like, generator) < 0.5, -1.0, 1.0).to(like.dtype)


def _gaussian(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return random_numbers(torch.randn, shape, like, generator)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}; wanted a whole number of at least 1.")


MODES = {"forward": None, "reverse": None}
NOISES = {"rademacher": _rademacher, "gaussian": _gaussian}
DIVERGENCES: dict[str, Divergence] = {way.name: way for way in (Exact(), Hutchinson(), HutchPlusPlus())}


def _inner(a: Vectors, b: Vectors) -> Float[Tensor, "vectors batch"]:
    return (a * b).flatten(2).sum(-1)
