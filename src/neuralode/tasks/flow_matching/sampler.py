"""Draw samples from a trained field, and evaluate its density."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from neuralode.nn import CNF, flows
from neuralode.tasks.flow_matching.config import FlowMatchingConfig
from neuralode.tasks.flow_matching.data import Examples

TOLERANCE = 1e-5  # of log-densities


@dataclass(frozen=True, eq=False)
class Sampler:
    """A trained field and the options of sampling.

    Parameters
    ----------
    field : Module
        Field of standardised states.
    examples : Examples
        Examples of the training.
    config : FlowMatchingConfig
        Grid, steps, method and guidance.
    """

    field: nn.Module
    examples: Examples
    config: FlowMatchingConfig

    def draw(
        self, count: int, label: Int64[Tensor, " count"] | None = None, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "count *event"]:
        """Return samples in their own units.

        Parameters
        ----------
        count : int
            Number of samples.
        label : LongTensor[count], default=None
            Class of each sample. None draws all classes in turn. Not used without classes.
        generator : Generator, default=None
            Source of the noise.
        """
        config, classes = self.config, self.examples.classes
        x0 = torch.randn(count, *self.examples.event, generator=generator)
        field, args = self.field, ()
        if classes:
            label = torch.arange(count) % classes if label is None else label
            field, args = flows.Guided(field, config.guidance, null=classes), (label,)
        drawn = flows.sample(field, x0, args=args, grid=config.grid, steps=config.steps, method=config.method)
        return self.examples.unstandardize(drawn.x)

    @torch.no_grad()
    def log_prob(self, x: Float[Tensor, "count *event"], *label: Tensor) -> Float[Tensor, " count"]:
        """Return the log-density of states in their own units, in nats.

        It is that of the field without guidance, solved to `TOLERANCE`. Samples of `draw` follow a slightly different
        distribution, which depends on the number of steps and on guidance.

        Parameters
        ----------
        x : Tensor[count, *event]
            States.
        *label : LongTensor[count]
            Their classes, if there are classes.
        """
        scaled = self.examples.standardize((x,))[0]
        flow = CNF(self.field, base=self.examples.event, rtol=TOLERANCE, atol=TOLERANCE)
        return flow.log_prob(scaled, *label) - self.examples.scale.expand(self.examples.event).log().sum()
