"""Train flows with torchcfm on pairs of minibatches, and sample them with `odeint`."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import torch
import torchdiffeq
from torch import Tensor

# torchcfm.utils, which contains torch_wrapper, imports torchdyn for one data set that is not needed here.
for name in ("torchdyn", "torchdyn.datasets"):
    sys.modules[name] = ModuleType(name)
sys.modules["torchdyn.datasets"].generate_moons = None  # type: ignore[attr-defined]

from torchcfm.conditional_flow_matching import (  # noqa: E402
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
)
from torchcfm.models.models import MLP  # noqa: E402
from torchcfm.utils import sample_8gaussians, torch_wrapper  # noqa: E402

BATCH, STEPS, ROWS = 64, 40, 32


def trained(matcher: ConditionalFlowMatcher) -> tuple[MLP, Tensor]:
    torch.manual_seed(0)
    np.random.seed(0)  # used to draw pairs
    model, losses = MLP(dim=2, time_varying=True, w=32), []
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn(BATCH, 2), sample_8gaussians(BATCH))
        loss = (model(torch.cat([xt, t[:, None]], -1)) - ut).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, torch.stack(losses)


def main() -> None:
    found: dict[str, list[Tensor]] = {}
    for matcher in (ConditionalFlowMatcher(0.1), ExactOptimalTransportConditionalFlowMatcher(0.1)):
        model, losses = trained(matcher)
        flow, x0, t = torch_wrapper(model), torch.randn(ROWS, 2), torch.linspace(0, 1, 11)
        with torch.no_grad():
            drawn = torchdiffeq.odeint(flow, x0, t, atol=1e-5, rtol=1e-5, method="dopri5")
            by_euler = torchdiffeq.odeint(lambda t, x, flow=flow: flow(t, x), x0, t, method="euler")
        start = x0.clone().requires_grad_()
        end = torchdiffeq.odeint_adjoint(flow, start, t[[0, -1]], atol=1e-5, rtol=1e-5, method="dopri5")[-1]
        gradients = torch.autograd.grad(end.square().mean(), (start, *model.parameters()))
        name = type(matcher).__name__
        found[f"training, {name}"] = [losses]
        found[f"fixed, {name}"] = [by_euler]
        found[f"adaptive, {name}"] = [drawn]
        found[f"gradients, {name}"] = list(gradients)
    torch.save(found, sys.argv[1])


if __name__ == "__main__":
    main()
