r"""Augmented flows: extra dimensions of noise, in which paths can pass each other.

The paths of a flow cannot cross, but in more dimensions they need not: data x are joined with noise a, a flow learns
the density of both, and :math:`p(x) = \int p(x, a)\,da` (Dupont, Doucet & Teh, *Augmented neural ODEs*, 2019; Huang,
Dinh & Courville, *Augmented normalizing flows*, 2020; Chen et al., *VFlow*, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.flows.base_distribution import StandardNormal

if TYPE_CHECKING:
    from neuralode.nn.flows.cnf import CNF


class Augmented(nn.Module):
    """A density of data from a flow of data and noise.

    Parameters
    ----------
    flow : CNF
        A flow of data and noise, joined along the first axis of a sample (features, or channels of an image), data
        first.
    extra : int
        The size of the noise along that axis.

    Raises
    ------
    ValueError
        If ``extra`` is below 1 or leaves no data.

    Examples
    --------
    >>> from neuralode.nn import CNF
    >>> from neuralode.nn.flows import ConcatSquashField
    >>> model = Augmented(CNF(ConcatSquashField(2 + 1, width=16), base=2 + 1), extra=1)
    >>> x = model.sample(5)
    >>> x.shape, model.log_prob(x).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, flow: CNF, extra: int) -> None:
        super().__init__()
        first, *others = flow.event_shape
        if isinstance(extra, bool) or not isinstance(extra, int) or not 0 < extra < first:
            raise ValueError(f"extra={extra!r}; wanted 1 to {first - 1} of the {first} along the flow's first axis.")
        self.flow = flow
        self.noise = StandardNormal((extra, *others))
        self.event_shape = torch.Size((first - extra, *others))

    def log_prob(
        self,
        x: Float[Tensor, "*batch *event"],
        *args: Any,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Return an estimate whose mean is a lower bound on the log-density; more samples make the bound tighter.

        It is the importance-weighted bound log (1/k) Σ p(x, aᵢ) / q(aᵢ), with a from the standard normal q (Burda,
        Grosse & Salakhutdinov, 2016).

        Parameters
        ----------
        x : Tensor[*batch, *event]
            Data.
        *args
            Further arguments of the field.
        samples : int, default=1
            k, the number of noise samples for each row.
        generator : torch.Generator, default=None
            The source of randomness, also of an estimated divergence.

        Raises
        ------
        ValueError
            If ``samples`` is below 1 or x has another shape.
        """
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(f"samples={samples!r}; wanted a whole number of at least 1.")
        batch = x.shape[: x.dim() - len(self.event_shape)]
        if x.shape != (*batch, *self.event_shape):
            raise ValueError(f"x has shape {list(x.shape)}; wanted samples {list(self.event_shape)} as its last axes.")
        noise = self.noise.sample((samples, *batch), generator).to(x.dtype)
        joint = torch.cat((x.expand(samples, *x.shape), noise), -len(self.event_shape))
        ratio = self.flow.log_prob(joint, *args, generator=generator) - self.noise.log_prob(noise)
        return ratio.logsumexp(0) - math.log(samples)

    def sample(
        self, shape: int | Sequence[int] = (), *args: Any, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*sample *batch *event"]:
        """Draw data and drop the noise; parameters as in `neuralode.nn.CNF.sample`."""
        joint = self.flow.sample(shape, *args, generator=generator)
        axis = joint.dim() - len(self.event_shape)
        return joint.narrow(axis, 0, self.event_shape[0])
