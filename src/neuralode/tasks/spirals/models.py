"""Models of spirals: a latent ODE, and a recurrent network that forecasts from its own predictions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from neuralode.data.spirals import NOISE
from neuralode.nn import RNN, LatentODE, Likelihood, Observations, mlp
from neuralode.tasks.spirals.config import SpiralsConfig
from neuralode.tasks.spirals.data import SCALE


def latent_ode(config: SpiralsConfig) -> LatentODE:
    """Return a latent ODE with a linear decoder and the known noise."""
    return LatentODE(
        2,
        config.latent,
        hidden=config.hidden,
        width=config.width,
        field=ScaledField(config.latent, config.width),
        # Linear, so that the latent trajectory has the shape of the data instead of the decoder undoing distortions.
        decoder=nn.Linear(config.latent, 2),
        likelihood=Likelihood(2, scale=NOISE / SCALE),  # the noise is given, as in the authors' script
        per_sample=False,  # all series share a time grid
        method=config.method,
        rtol=config.rtol,
        atol=config.atol,
        gradient=config.gradient,
    )


class ScaledField(nn.Module):
    """Field ``dz/dt = 4 MLP(z)``: windows of unit length contain more than half a turn, too fast for a plain MLP.

    Parameters
    ----------
    latent : int
        Dimension of z.
    width : int
        Width of the hidden layers.

    Examples
    --------
    >>> ScaledField(4, 16)(torch.tensor(0.0), torch.zeros(3, 4)).shape
    torch.Size([3, 4])
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        sizes = (latent, width, width, latent)
        self.net = mlp(*sizes)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Return dz/dt."""
        return 4 * self.net(z)


class AutoregressiveRNN(nn.Module):
    """GRU that predicts the next point from the time until then, and forecasts from its own predictions.

    Parameters
    ----------
    channels : int
        Coordinates of a point.
    hidden : int
        Dimension of the hidden state.
    width : int
        Width of the layer between hidden state and prediction.

    Examples
    --------
    >>> model = AutoregressiveRNN(2, 8, 16)
    >>> batch = Observations.gather([([0.0, 0.02], [[1.0, 2.0], [3.0, 4.0]])])
    >>> model(batch).shape, model.forecast(batch, torch.arange(5) / 100).shape
    (torch.Size([1, 2, 2]), torch.Size([1, 5, 2]))
    """

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.reader = RNN(channels, hidden)
        self.head = mlp(hidden + 1, width, channels)

    def forward(self, observed: Observations) -> Float[Tensor, "series steps channels"]:
        """Return the prediction of each observation from those before it."""
        previous = nn.functional.pad(self.reader.states(observed)[:, :-1], (0, 0, 1, 0))
        elapsed = observed.times.diff(dim=1, prepend=observed.start[:, None])
        return self._predict(previous, elapsed)

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:
        """Return predictions at ``times``, an even grid that contains the observation times: [series, steps, channels].

        Up to the last observation, each is predicted from those before it. Afterwards the network reads its own
        predictions, at the mean spacing of the observations: it was not trained on shorter steps.
        """
        given, values = on_grid(observed, times)
        spacing = (observed.times[:, -1] - observed.start).sum() / observed.lengths.sum()
        every = max(1, round(float(spacing / (times[1] - times[0]))))
        last = torch.where(given, torch.arange(len(times), device=times.device), -1).amax(1)
        h = values.new_zeros(len(observed), self.reader.hidden)
        clock, predictions = observed.start, []
        for step, time in enumerate(times):
            elapsed = time - clock
            prediction = self._predict(h, elapsed)
            predictions.append(prediction)
            read = given[:, step] | (step > last) & ((step - last) % every == 0)
            point = torch.where(given[:, step, None], values[:, step], prediction)
            inputs = torch.cat((point, torch.ones_like(point), elapsed[:, None].to(point.dtype)), -1)
            h = torch.where(read[:, None], self.reader.cell(inputs, h), h)
            clock = torch.where(read, time, clock)
        return torch.stack(predictions, 1)

    def _predict(self, h: Float[Tensor, "... hidden"], elapsed: Tensor) -> Tensor:
        return self.head(torch.cat((h, elapsed[..., None].to(h.dtype)), -1))


def on_grid(observed: Observations, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of ``times`` were observed, [series, steps], and the values there, [series, steps, channels]."""
    near = (observed.times[..., None] - times.double()).abs() < 0.5 * (times[1] - times[0])
    near = near & observed.inside[..., None]
    return near.any(1), torch.einsum("sng,snc->sgc", near.to(observed.values.dtype), observed.values)
