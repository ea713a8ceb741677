"""Flows as distributions and transforms of `torch.distributions`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

from neuralode.nn.flows.flow import Flow


class FlowTransform(Transform):
    """The invertible map of a `neuralode.nn.CNF` from base to data.

    One solve gives both the mapped state and the determinant, so the determinant of the last map is cached, keyed by
    the identity of its two ends. `torch.distributions.TransformedDistribution` then takes one solve instead of two. The
    mapped states themselves are not cached, because the parameters of the flow may change between calls.

    Parameters
    ----------
    flow : Flow
        The flow.
    args : tuple, default=()
        Further arguments of its field.

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
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # x, y, log det
        space = constraints.independent(constraints.real, len(flow.event_shape))
        self.domain = self.codomain = space  # type: ignore[assignment]

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        """Return an equal transform; the size is ignored, because mapped states are never cached."""
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
        """Return log |det ∂y/∂x| of shape [*batch]."""
        if self._last is None or self._last[0] is not x or self._last[1] is not y:
            return self.flow.forward_and_log_det(x, *self.args).log_det
        return self._last[2]


class FlowDistribution(Distribution):
    """The distribution of a `neuralode.nn.CNF`, given the arguments that its field is conditioned on.

    Parameters
    ----------
    flow : Flow
        The flow.
    args : tuple, default=()
        Further arguments of its field. Those with rows make a batch of distributions.
    batch_shape : torch.Size, default=None
        The shape of the batch; None takes it from the rows of ``args``.

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
        """The whole real space of samples."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """Return a batch of equal distributions.

        Raises
        ------
        ValueError
            If the flow is conditioned on several rows and the batch has another shape than these.
        """
        shape = torch.Size(batch_shape)
        rows = self.flow.rows_of(self.args)
        if not any(arg is not None for arg in rows):
            return FlowDistribution(self.flow, self.args, shape)
        own = self.batch_shape
        if len(shape) != 1 or own not in ((1,), shape):
            raise ValueError(f"expand({tuple(shape)}) of a flow conditioned on {own[0]} rows; wanted as many, or one.")
        args = tuple(a if r is None else r.expand(*shape, *r.shape[1:]) for a, r in zip(self.args, rows, strict=True))
        return FlowDistribution(self.flow, args, shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw samples [*sample_shape, *batch, *event], differentiably."""
        rows = [arg for arg in self.flow.rows_of(self.args) if arg is not None]
        return self.flow.sample((*sample_shape, *(() if rows else self.batch_shape)), *self.args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw samples [*sample_shape, *batch, *event] without a graph."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of samples, in nats."""
        batch = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        return self.flow.log_prob(value.expand(*batch, *self.event_shape), *self.args)
