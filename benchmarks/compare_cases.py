"""Cases that `benchmarks.compare` times on two checkouts: each workload maps names to functions without arguments.

Cases use only the public interface of neuralode, so that the same code runs on both checkouts. Each function returns
the tensors it computed, and the comparison reports whether they are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import neuralode
from benchmarks.fields import SIZES, Size, SmallField, start
from neuralode.nn.flows import ConcatSquashField, sample

Case = Callable[[], Sequence[Tensor]]
Cases = dict[str, Case]

CLOCKS = {"shared": False, "per sample": True}
EXACT_GRADIENTS = ("replay", "direct")
VAN_DER_POL = {"mu=2": 2.0, "mu=25": 25.0}
ROWS, OUTPUTS = 256, 200
W6_STEPS = ("tsit5 replay", "dopri5 replay", "bosh3 replay", "bosh3 direct", "bosh3 adjoint")
W5_GRADIENTS = ("replay", "adjoint", "direct")


def w1(device: torch.device) -> Cases:
    """Small neural ODE: forward on both clocks, and both exact gradients on both clocks."""
    cases: Cases = {}
    for size in SIZES:
        f = SmallField(size).to(device)
        problem = f, start(size).to(device), torch.linspace(0, 10, 11, device=device)
        for clock, per_sample in CLOCKS.items():
            options = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6, "per_sample": per_sample}
            solve = partial(neuralode.solve, *problem, **options)
            cases[f"{size}: forward, {clock}"] = partial(_forward, solve)
            for gradient in EXACT_GRADIENTS:
                cases[f"{size}: {gradient}, {clock}"] = partial(_gradient, partial(solve, gradient=gradient), f)
    return cases


def w2(device: torch.device) -> Cases:
    """Van der Pol oscillators over one period, each row with its own steps."""
    y0 = 4 * torch.rand(ROWS, 2, generator=torch.Generator().manual_seed(0)) - 2
    cases: Cases = {}
    for name, mu in VAN_DER_POL.items():
        period = (3 - 2 * math.log(2)) * mu + 2 * math.pi / mu ** (1 / 3)
        problem = partial(_van_der_pol, mu), y0.to(device), torch.linspace(0, period, OUTPUTS, device=device)
        solve = partial(neuralode.solve, *problem, method="dopri5", rtol=1e-5, atol=1e-5, per_sample=True)
        cases[f"{name}: forward, per sample"] = partial(_forward, solve)
    return cases


def startup(device: torch.device) -> Cases:
    """Cost of a solve besides its steps: a span of zero length, and a single Euler step."""
    size = Size(1, 2, 64)
    f, y0 = SmallField(size).to(device), start(size).to(device)
    cases: Cases = {}
    for clock, per_sample in CLOCKS.items():
        options = {"method": "euler", "step_size": 0.1, "per_sample": per_sample}
        zero_span = partial(neuralode.solve, f, t=(0.0, 0.0), per_sample=per_sample)
        one_step = partial(neuralode.solve, f, y0, t=(0.0, 0.1), **options)
        cases[f"zero span: forward, {clock}"] = partial(_forward, partial(zero_span, y0))
        cases[f"zero span: replay, by y0, {clock}"] = partial(_gradient_by_y0, zero_span, y0)
        cases[f"one Euler step: forward, {clock}"] = partial(_forward, one_step)
        for gradient in EXACT_GRADIENTS:
            cases[f"one Euler step: {gradient}, {clock}"] = partial(_gradient, partial(one_step, gradient=gradient), f)
    return cases


def w5(device: torch.device) -> Cases:
    """Training step of a continuous normalizing flow, untrained."""
    torch.manual_seed(0)
    field = ConcatSquashField(2, 128, 3).to(device)
    x = torch.randn(512, 2, generator=torch.Generator().manual_seed(0)).to(device)

    def step(gradient: str) -> Sequence[Tensor]:
        flow = neuralode.nn.CNF(field, 2, method="dopri5", rtol=1e-5, atol=1e-5, gradient=gradient).to(device)
        loss = -flow.log_prob(x).mean()
        return torch.autograd.grad(loss, list(field.parameters()))

    return {gradient: partial(step, gradient) for gradient in W5_GRADIENTS}


def w6(device: torch.device) -> Cases:
    """Loss and gradient of the ODE-Net on one batch of MNIST, or of noise where MNIST is not available."""
    from benchmarks import w6 as workload

    torch.manual_seed(0)
    batches, _ = workload.images(device)
    batch = tuple(part[0] for part in batches)
    cases: Cases = {}
    for name in W6_STEPS:
        torch.manual_seed(0)
        net = neuralode.nn.ODENet().to(device)
        net.ode.method, net.ode.gradient = name.split()
        cases[name] = partial(_training_step, net, *batch)
    return cases


def w7(device: torch.device) -> Cases:
    """Sampling a flow in 50 Euler steps, not compiled."""
    from benchmarks import w7 as workload

    field = workload.TimedField().to(device)
    noise = torch.randn(max(workload.BATCHES), workload.FEATURES, generator=torch.Generator().manual_seed(0)).to(device)
    return {
        f"batch {batch}": lambda x=noise[:batch]: [sample(field, x, steps=workload.STEPS).x]
        for batch in workload.BATCHES
    }


def stiff(device: torch.device) -> Cases:
    """Stiff problems by implicit methods, on the CPU."""
    from benchmarks import stiff as workload

    return {
        f"{problem.name}: {method}, {tolerance:g}": lambda problem=problem, method=method, tolerance=tolerance: [
            torch.from_numpy(workload.ours(problem, method, tolerance)[0])
        ]
        for problem in workload.PROBLEMS[:2]
        for method, tolerance in (("kvaerno4", 1e-4), ("kvaerno5", 1e-6))
    }


def dropin(device: torch.device) -> Cases:
    """Calls of `neuralode.torchdiffeq` with the interface of torchdiffeq."""
    from neuralode import torchdiffeq

    size = Size(128, 2, 64)
    f = SmallField(size).to(device)
    problem = f, start(size).to(device), torch.linspace(0, 10, 11, device=device)
    dopri5 = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6}
    rk4 = {"method": "rk4", "options": {"step_size": 0.1}}
    cases: Cases = {}
    for name, options in {"dopri5": dopri5, "rk4 in 100 steps": rk4}.items():
        for interface in (torchdiffeq.odeint, torchdiffeq.odeint_adjoint):
            solve = partial(interface, *problem, **options)
            cases[f"{name}: {interface.__name__}, forward"] = partial(_forward, solve)
            cases[f"{name}: {interface.__name__}, forward + gradient"] = partial(_gradient, solve, f)
    return cases


WORKLOADS: dict[str, Callable[[torch.device], Cases]] = {
    "w1": w1,
    "w2": w2,
    "startup": startup,
    "w5": w5,
    "w6": w6,
    "w7": w7,
    "stiff": stiff,
    "dropin": dropin,
}


def _forward(solve: Callable[[], object]) -> Sequence[Tensor]:
    with torch.no_grad():
        return [_outputs(solve())]


def _gradient(solve: Callable[[], object], f: nn.Module) -> Sequence[Tensor]:
    return torch.autograd.grad(_outputs(solve()).sum(), list(f.parameters()))


def _gradient_by_y0(solve: Callable[[Tensor], object], y0: Tensor) -> Sequence[Tensor]:
    y0 = y0.clone().requires_grad_()
    return torch.autograd.grad(_outputs(solve(y0)).sum(), [y0])


def _outputs(solution: object) -> Tensor:
    ys = solution if isinstance(solution, Tensor) else getattr(solution, "ys", None)
    assert isinstance(ys, Tensor)
    return ys


def _training_step(net: nn.Module, images: Tensor, labels: Tensor) -> Sequence[Tensor]:
    loss = nn.functional.cross_entropy(net(images), labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]


def _van_der_pol(mu: float, t: Tensor, y: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack((v, mu * (1 - x * x) * v - x), -1)
