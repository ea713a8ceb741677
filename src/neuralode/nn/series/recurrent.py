"""Recurrent networks for irregular series, which differ in how the hidden state changes between observations.

All process step k of every series at once, longest series first. A batch takes as many steps as its longest series has
observations, and each step computes only the series that have not ended. (The usual implementation iterates over the
union of all times of the batch.)

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
    """The base class: a GRU over the observations of a series.

    Subclasses override `inputs` and `between`.

    Parameters
    ----------
    channels : int
        Channels of the series.
    hidden : int
        The size of the hidden state.
    inputs : int
        The size of the input of the cell.
    """

    def __init__(self, channels: int, hidden: int, inputs: int) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        self.cell = nn.GRUCell(inputs, hidden)

    def forward(self, observed: Observations) -> Float[Tensor, "series hidden"]:
        """Return the hidden state after the last observation of each series.

        Parameters
        ----------
        observed : Observations
            The series, processed in the order given; `Observations.reversed` reverses time.

        Raises
        ------
        ValueError
            If the series have another number of channels.
        """
        order = torch.argsort(observed.lengths, descending=True, stable=True)
        states = list(self._iterate_steps(observed, order))
        # Rows are sorted by length: the series that end at step k are the rows of its state that step k + 1 lacks.
        remaining = [len(h) for h in states[1:]] + [0]
        last = [h[count:] for h, count in zip(states, remaining, strict=True)]
        return torch.cat(last[::-1])[torch.argsort(order)]

    def states(self, observed: Observations) -> Float[Tensor, "series steps hidden"]:
        """Return the hidden state after every observation, and 0 after the end of a series."""
        order = torch.argsort(observed.lengths, descending=True, stable=True)
        steps = [nn.functional.pad(h, (0, 0, 0, len(observed) - len(h))) for h in self._iterate_steps(observed, order)]
        padding = observed.times.shape[1] - len(steps)  # steps that no series has
        return nn.functional.pad(torch.stack(steps, 1), (0, 0, 0, padding))[torch.argsort(order)]

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Return the input of the cell at each observation: values, and flags for which of them are present."""
        return torch.cat((observed.values, observed.seen.to(observed.values.dtype)), -1)

    def between(self, h: Tensor, t0: Float64[Tensor, " rows"], t1: Float64[Tensor, " rows"]) -> Tensor:
        """Return the hidden state at t1, given that at t0; here it is constant between observations."""
        return h

    def _iterate_steps(self, observed: Observations, order: Tensor) -> Iterator[Tensor]:
        """Yield the hidden states after each step, of the series that have not ended."""
        if observed.channels != self.channels:
            raise ValueError(
                f"observed has {observed.channels} channels, the {type(self).__name__} {self.channels}; wanted as many."
            )
        inputs = self.inputs(observed)[order].transpose(0, 1).contiguous()  # each step contiguous in memory
        times = observed.times[order].T.contiguous()
        lengths = observed.lengths[order].tolist()
        h = inputs.new_zeros(len(lengths), self.hidden)
        active = len(lengths)
        for step in range(len(times)):
            while active and lengths[active - 1] <= step:
                active -= 1
            if not active:
                return
            h = h[:active]
            if step:
                h = self.between(h, times[step - 1, :active], times[step, :active])
            h = self.cell(inputs[step, :active], h)
            yield h


class RNN(Recurrent):
    """A GRU with the time since the last observation as an input.

    Parameters
    ----------
    channels : int
        Channels of the series.
    hidden : int
        The size of the hidden state.

    Examples
    --------
    >>> batch = Observations.gather([([0.0, 1.0], [[1.0], [2.0]]), ([0.5], [[3.0]])])
    >>> RNN(channels=1, hidden=8)(batch).shape
    torch.Size([2, 8])
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, 2 * channels + 1)

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Return values, flags for which of them are present, and the time since the last observation."""
        since = observed.times.diff(dim=1, prepend=observed.times[:, :1])
        return torch.cat((super().inputs(observed), since[..., None].to(observed.values.dtype)), -1)


class GRUDecay(Recurrent):
    """GRU-D: the hidden state decays between observations, and missing values decay from the last one towards 0.

    Values should be standardised to mean 0, the value to which channels decay.

    Parameters
    ----------
    channels : int
        Channels of the series.
    hidden : int
        The size of the hidden state.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, 2 * channels)
        # All rates start above 0: below, the gradient of the rectifier is 0, and they would never change.
        self.forget = nn.Linear(1, hidden)
        with torch.no_grad():
            self.forget.weight.abs_()
            self.forget.bias.zero_()
        self.fade = nn.Parameter(torch.ones(channels))
        self.delay = nn.Parameter(torch.zeros(channels))

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Return values with missing ones imputed, and flags for which of them are present."""
        last, since = observed.carried()
        decay = torch.exp(-torch.relu(self.fade * since.to(last.dtype) + self.delay))
        filled = torch.where(observed.seen, observed.values, decay * last)
        return torch.cat((filled, observed.seen.to(filled.dtype)), -1)

    def between(self, h: Tensor, t0: Float64[Tensor, " rows"], t1: Float64[Tensor, " rows"]) -> Tensor:
        """Return the hidden state, decayed at learned rates."""
        since = (t1 - t0).abs()[:, None].to(h.dtype)
        return h * torch.exp(-torch.relu(self.forget(since)))


class ODERNN(Recurrent):
    """A GRU whose hidden state follows an ODE between observations.

    Parameters
    ----------
    channels : int
        Channels of the series.
    hidden : int
        The size of the hidden state.
    f : Module or callable, default=None
        The field of the hidden state; None is an MLP with one hidden layer.
    width : int, default=50
        The size of that hidden layer.
    **solver
        How the ODE is solved: ``method``, ``steps``, ``rtol``, ``atol`` and ``gradient`` of `Evolve`.

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
        """Return the hidden state, moved along the field."""
        return self.evolve(h, t0, t1)
