"""A classifier of irregular series."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.mlp import mlp
from neuralode.nn.series.observations import Observations
from neuralode.nn.series.recurrent import Recurrent


class SeriesNet(nn.Module):
    """A recurrent network over a series, and a head on its last, mean and largest hidden state.

    Parameters
    ----------
    reader : Recurrent
        The recurrent network.
    outputs : int
        The size of the output, such as one logit for each class.
    static : int, default=0
        The number of static covariates of a series.
    width : int, default=64
        The size of the hidden layer of the head.
    dropout : float, default=0.0
        The dropout probability before and after that layer, in training.

    Raises
    ------
    ValueError
        In `forward`, if the series have another number of covariates.

    Examples
    --------
    >>> from neuralode.nn import ODERNN
    >>> batch = Observations.gather([([0.0, 1.0], [[1.0], [2.0]]), ([0.5], [[3.0]])])
    >>> SeriesNet(ODERNN(channels=1, hidden=8), outputs=3)(batch).shape
    torch.Size([2, 3])
    """

    def __init__(
        self, reader: Recurrent, outputs: int, *, static: int = 0, width: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.reader, self.static = reader, static
        hidden = [nn.Dropout(dropout), *mlp(3 * reader.hidden + static, width), nn.Tanh(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*hidden, nn.Linear(width, outputs))

    def forward(self, observed: Observations) -> Float[Tensor, "series outputs"]:
        """Return the logits of each series."""
        covariates = 0 if observed.static is None else observed.static.shape[1]
        if covariates != self.static:
            raise ValueError(
                f"observed has {covariates} static covariates, the network takes {self.static}; wanted as many."
            )
        states = self.reader.states(observed)
        inside = observed.inside[..., None]
        last_step = (observed.lengths - 1)[:, None, None]
        last = states.gather(1, last_step.expand(-1, 1, states.shape[-1]))[:, 0]
        mean = states.sum(1) / observed.lengths[:, None]
        largest = states.masked_fill(~inside, -torch.inf).amax(1)
        parts = [last, mean, largest]
        if observed.static is not None:
            parts.append(observed.static)
        return self.head(torch.cat(parts, -1))
