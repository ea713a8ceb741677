"""Learn the vector field of a spiral from pieces of one trajectory, in the style of the paper's code."""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn as nn
import torch.optim as optim

parser = argparse.ArgumentParser("spiral")
parser.add_argument("out")
parser.add_argument("--adjoint", action=argparse.BooleanOptionalAction, default=False)
parser.add_argument("--method", choices=["dopri5", "adams", "rk4"], default="dopri5")
parser.add_argument("--points", type=int, default=500)
parser.add_argument("--batch-time", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=20)
parser.add_argument("--iterations", type=int, default=60)
parser.add_argument("--test-every", type=int, default=60)


class Truth(nn.Module):
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])

    def forward(self, t, y):
        return (y**3) @ self.matrix


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.1)
                nn.init.zeros_(layer.bias)
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(y**3)


class RunningAverage:
    def __init__(self, momentum=0.97):
        self.momentum = momentum
        self.value = None

    def update(self, value):
        self.value = value if self.value is None else self.momentum * self.value + (1 - self.momentum) * value


def draw_batch(args, t, truth):
    starts = torch.randperm(args.points - args.batch_time)[: args.batch_size]
    return truth[starts], t[: args.batch_time], torch.stack([truth[starts + i] for i in range(args.batch_time)])


def main(args):
    if args.adjoint:
        from torchdiffeq import odeint_adjoint as odeint
    else:
        from torchdiffeq import odeint

    torch.manual_seed(0)
    y0, t = torch.tensor([[2.0, 0.0]]), torch.linspace(0.0, 25.0, args.points)
    with torch.no_grad():
        truth = odeint(Truth(), y0, t, method="dopri5")

    func = Learned()
    optimizer = optim.RMSprop(func.parameters(), lr=1e-3)
    took, average, losses, tests = RunningAverage(), RunningAverage(), [], []
    for iteration in range(1, args.iterations + 1):
        begun = time.time()
        optimizer.zero_grad()
        batch_y0, batch_t, batch_y = draw_batch(args, t, truth)
        loss = (odeint(func, batch_y0, batch_t, method=args.method) - batch_y).abs().mean()
        loss.backward()
        optimizer.step()
        took.update(time.time() - begun)
        average.update(loss.item())
        losses.append(loss.detach())
        if iteration % args.test_every == 0:
            with torch.no_grad():
                tests.append((odeint(func, y0, t, method=args.method) - truth).abs().mean())
            print(f"{iteration:04d} loss {average.value:.4f} whole {tests[-1]:.4f} {took.value:.3f} s nfe {func.nfe}")
    found = {"truth": [truth], "losses": losses, "tests": tests, "weights": [p.detach() for p in func.parameters()]}
    torch.save(found, args.out)


if __name__ == "__main__":
    main(parser.parse_args())
