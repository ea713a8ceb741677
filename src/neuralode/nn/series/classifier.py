"""Naming what kind of series one has seen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.mlp import mlp
from neuralode.nn.series.observations import Observations
from neuralode.nn.series.recurrent import Recurrent


class SeriesNet(nn.Module):
    """Read a series, look at the hidden state where it ended, where it was highest and on average; answer.

    Parameters
    ----------
    reader : Recurrent
        What reads.
    outputs : int
        Numbers to answer with: a logit a class.
    static : int
        Covariates of a series.
    width : int
        Of the hidden layer between what was read and the answer.
    dropout : float
        Chance of a number being left out before that layer and behind it, in training.

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
        self.head = nn.Sequential(
            nn.Dropout(dropout), *mlp(3 * reader.hidden + static, width), nn.Tanh(), nn.Dropout(dropout),
            nn.Linear(width, outputs),
        )  # fmt: skip

    def forward(self, observed: Observations) -> Float[Tensor, "series outputs"]:
        """Logits of each series."""
        covariates = 0 if observed.static is None else observed.static.shape[1]
        if covariates != self.static:
            raise ValueError(
                f"observed has {covariates} static covariates, the network takes {self.static}; wanted as many."
            )
        states = self.reader.states(observed)
        inside = observed.inside[..., None]
        last = states.gather(1, (observed.lengths - 1)[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        mean = states.sum(1) / observed.lengths[:, None]
        highest = states.masked_fill(~inside, -torch.inf).amax(1)
        parts = [last, mean, highest]
        if observed.static is not None:
            parts.append(observed.static)
        return self.head(torch.cat(parts, -1))
