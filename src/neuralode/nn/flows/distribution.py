"""A flow among the distributions of torch."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

from neuralode.nn.flows.base_distribution import Moved


class Flow(Protocol):
    """What is made a distribution: a `neuralode.nn.CNF`, as far as it is seen from here."""

    @property
    def event_shape(self) -> torch.Size:
        """Of one sample."""
        ...

    def forward_and_log_det(self, z: Tensor, /, *args: Any) -> Moved:
        """From base to data."""
        ...

    def inverse_and_log_det(self, x: Tensor, /, *args: Any) -> Moved:
        """From data to base."""
        ...

    def log_prob(self, x: Tensor, /, *args: Any) -> Tensor:
        """The log-density."""
        ...

    def sample(self, shape: Any, /, *args: Any) -> Tensor:
        """Draw."""
        ...

    def rows_of(self, args: tuple, /) -> list[Tensor | None]:
        """Those of ``args`` that have a row for each sample."""
        ...


class FlowTransform(Transform):
    """The invertible map of a `CNF` from base to data.

    The determinant comes from the solve that maps, so that of the last map is remembered, by the identity of both ends:
    what `torch.distributions.TransformedDistribution` asks for takes one solve, not two. Maps themselves are made anew
    each time, as the flow may have learned in between.

    Examples
    --------
    >>> from torch.distributions import Independent, Normal, TransformedDistribution
    >>> from neuralode.nn import CNF
    >>> flow = CNF(lambda t, x: x, base=2)  # x = e z
    >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    >>> model = TransformedDistribution(base, [flow.transform()])
    >>> round(model.log_prob(torch.zeros(2)).item(), 3)  # -log(2 π) - 2
    -3.838
    """

    bijective = True

    def __init__(self, flow: Flow, args: tuple = ()) -> None:
        super().__init__(cache_size=0)
        self.flow, self.args = flow, args
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        whole = constraints.independent(constraints.real, len(flow.event_shape))
        self.domain = self.codomain = whole  # type: ignore[assignment]

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        """One like it, for torch's sake: there is no cache of maps, whatever its size."""
        return FlowTransform(self.flow, self.args)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last": None}  # it may hold a graph

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self.flow.forward_and_log_det(x, *self.args)
        self._last = (x, y, log_det)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self.flow.inverse_and_log_det(y, *self.args)
        self._last = (x, y, -log_det)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log |det ∂y/∂x|."""
        if self._last is None or self._last[0] is not x or self._last[1] is not y:
            return self.flow.forward_and_log_det(x, *self.args).log_det
        return self._last[2]


class FlowDistribution(Distribution):
    """The model of a `CNF`, given what its field is conditioned on.

    Examples
    --------
    >>> from neuralode.nn import CNF
    >>> model = CNF(lambda t, x: x, base=2).distribution()
    >>> model.sample((5,)).shape, model.expand((3,)).sample((5,)).shape
    (torch.Size([5, 2]), torch.Size([5, 3, 2]))
    """

    arg_constraints: ClassVar[Any] = {}
    has_rsample = True

    def __init__(self, flow: Flow, args: tuple = (), batch_shape: torch.Size | None = None) -> None:
        rows = [arg.shape[:1] for arg in flow.rows_of(args) if arg is not None]
        self.flow, self.args = flow, args
        shape = (rows[0] if rows else torch.Size()) if batch_shape is None else batch_shape
        super().__init__(shape, flow.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """All of space."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """As many of it as a batch of this shape."""
        wanted = torch.Size(batch_shape)
        rows = self.flow.rows_of(self.args)
        if not any(arg is not None for arg in rows):
            return FlowDistribution(self.flow, self.args, wanted)
        own = self.batch_shape
        if len(wanted) != 1 or own not in ((1,), wanted):
            raise ValueError(f"expand({tuple(wanted)}) of a flow conditioned on {own[0]} rows; wanted as many, or one.")
        args = tuple(a if r is None else r.expand(*wanted, *r.shape[1:]) for a, r in zip(self.args, rows, strict=True))
        return FlowDistribution(self.flow, args, wanted)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, differentiably."""
        rows = [arg for arg in self.flow.rows_of(self.args) if arg is not None]
        return self.flow.sample((*sample_shape, *(() if rows else self.batch_shape)), *self.args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of whole samples."""
        batch = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        return self.flow.log_prob(value.expand(*batch, *self.event_shape), *self.args)
