"""Recurrent networks for irregular series: they differ in what the hidden state does between observations.

All walk alike: step k of every series at once, longest series first, so that a batch takes as many steps as its longest
series has observations, and each step computes only the series that still go on. (The usual way walks over the union of
all times of the batch instead.)

References
----------
.. [1] Z. Che, S. Purushotham, K. Cho, D. Sontag, Y. Liu, "Recurrent neural networks for multivariate time series with
   missing values", Scientific Reports 8, 2018: GRU-D.
.. [2] Y. Rubanova, R. T. Q. Chen, D. Duvenaud, "Latent ODEs for irregularly-sampled time series", NeurIPS 2019:
   ODE-RNN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from neuralode.nn.mlp import MLPField
from neuralode.nn.series.evolve import Evolve
from neuralode.nn.series.observations import Observations


class Recurrent(nn.Module):
    """A GRU that reads a series observation by observation; what happens in between is for the kinds of it to say.

    Parameters
    ----------
    channels : int
        Of the series.
    hidden : int
        Numbers in the hidden state.
    """

    def __init__(self, channels: int, hidden: int, inputs: int) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        self.cell = nn.GRUCell(inputs, hidden)

    def forward(self, observed: Observations) -> Float[Tensor, "series hidden"]:
        """The hidden state after the last observation of each series.

        Parameters
        ----------
        observed : Observations
            Read as they stand: `Observations.reversed` has them read backwards in time.
        """
        order = torch.argsort(observed.lengths, descending=True, stable=True)
        ended = list(self._walk(observed, order))
        # series that go on stand first: those which step k ended are the rows of its state that step k + 1 has not
        after = [len(h) for h in ended[1:]] + [0]
        last = [h[count:] for h, count in zip(ended, after, strict=True)]
        return torch.cat(last[::-1])[torch.argsort(order)]

    def states(self, observed: Observations) -> Float[Tensor, "series steps hidden"]:
        """The hidden state after every observation; 0 behind the end of a series."""
        order = torch.argsort(observed.lengths, descending=True, stable=True)
        steps = [nn.functional.pad(h, (0, 0, 0, len(observed) - len(h))) for h in self._walk(observed, order)]
        behind = observed.times.shape[1] - len(steps)  # padding that no series needed
        return nn.functional.pad(torch.stack(steps, 1), (0, 0, 0, behind))[torch.argsort(order)]

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """What the cell is shown at each observation."""
        return torch.cat((observed.values, observed.seen.to(observed.values.dtype)), -1)

    def between(self, h: Tensor, t0: Float64[Tensor, " rows"], t1: Float64[Tensor, " rows"]) -> Tensor:
        """What becomes of the hidden state from one time to the next: it stays, unless a kind says otherwise."""
        return h

    def _walk(self, observed: Observations, order: Tensor) -> Iterator[Tensor]:
        """The hidden states after each step, of the series that have so many."""
        if observed.channels != self.channels:
            raise ValueError(
                f"observed has {observed.channels} channels, the {type(self).__name__} {self.channels}; wanted as many."
            )
        shown = self.inputs(observed)[order].transpose(0, 1).contiguous()  # one step of all series lies together
        times = observed.times[order].T.contiguous()
        lengths = observed.lengths[order].tolist()
        h = shown.new_zeros(len(lengths), self.hidden)
        going = len(lengths)
        for step in range(len(times)):
            while going and lengths[going - 1] <= step:
                going -= 1
            if not going:
                return
            h = h[:going]
            if step:
                h = self.between(h, times[step - 1, :going], times[step, :going])
            h = self.cell(shown[step, :going], h)
            yield h


class RNN(Recurrent):
    """A GRU that is told how long ago the last observation was.

    Examples
    --------
    >>> batch = Observations.gather([([0.0, 1.0], [[1.0], [2.0]]), ([0.5], [[3.0]])])
    >>> RNN(channels=1, hidden=8)(batch).shape
    torch.Size([2, 8])
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, 2 * channels + 1)

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Values, which of them there are, and the time since the observation before."""
        since = observed.times.diff(dim=1, prepend=observed.times[:, :1])
        return torch.cat((super().inputs(observed), since[..., None].to(observed.values.dtype)), -1)


class GRUDecay(Recurrent):
    """GRU-D: the hidden state decays between observations, and a missing value from the last one seen towards 0.

    Values are expected to have mean 0: that is what a channel decays to.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, 2 * channels)
        # All rates start above 0: below, the rectifier that follows lets no gradient by, and they would stay there.
        self.forget = nn.Linear(1, hidden)
        with torch.no_grad():
            self.forget.weight.abs_()
            self.forget.bias.zero_()
        self.fade = nn.Parameter(torch.ones(channels))
        self.delay = nn.Parameter(torch.zeros(channels))

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Values, the missing ones filled in, and which were there."""
        last, since = observed.carried()
        kept = torch.exp(-torch.relu(self.fade * since.to(last.dtype) + self.delay))
        filled = torch.where(observed.seen, observed.values, kept * last)
        return torch.cat((filled, observed.seen.to(filled.dtype)), -1)

    def between(self, h: Tensor, t0: Float64[Tensor, " rows"], t1: Float64[Tensor, " rows"]) -> Tensor:
        """Decay at rates that are learned."""
        since = (t1 - t0).abs()[:, None].to(h.dtype)
        return h * torch.exp(-torch.relu(self.forget(since)))


class ODERNN(Recurrent):
    """A GRU whose hidden state follows an ODE from each observation to the next.

    Parameters
    ----------
    channels, hidden : int
        Of the series, and of the hidden state.
    f : Module or callable, optional
        The field of the hidden state; an MLP of one hidden layer of ``width`` unless given.
    width : int
        Of that MLP.
    method, steps, rtol, atol, gradient
        How the ODE is solved: as in `Evolve`.

    Examples
    --------
    >>> batch = Observations.gather([([0.0, 1.0], [[1.0], [2.0]]), ([0.5], [[3.0]])])
    >>> ODERNN(channels=1, hidden=8).states(batch).shape
    torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        f: Callable[..., Tensor] | None = None,
        *,
        width: int = 50,
        **solver: Any,
    ) -> None:
        super().__init__(channels, hidden, 2 * channels)
        self.evolve = Evolve(f or MLPField(hidden, width), **solver)

    def between(self, h: Tensor, t0: Float64[Tensor, " rows"], t1: Float64[Tensor, " rows"]) -> Tensor:
        """Follow the field."""
        return self.evolve(h, t0, t1)
