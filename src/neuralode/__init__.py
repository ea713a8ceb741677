"""Neural ordinary differential equations in PyTorch.

Examples
--------
>>> import torch, neuralode as node
>>> sol = node.solve(lambda t, y: -y, torch.ones(3), (0.0, 1.0))
>>> sol.ys.shape
torch.Size([2, 3])
"""

from neuralode import nn
from neuralode.control import PI, PID, Fixed, Given, I
from neuralode.gradients import Adjoint, Direct, Replay
from neuralode.methods import ExplicitRungeKutta, Tableau, methods
from neuralode.problem import Field
from neuralode.solution import Solution, Stats
from neuralode.solving import solve
from neuralode.status import GradientError, SolveError, Status
from neuralode.stepping import Stepper

__version__ = "0.1.0"

__all__ = [
    "PI",
    "PID",
    "Adjoint",
    "Direct",
    "ExplicitRungeKutta",
    "Field",
    "Fixed",
    "Given",
    "GradientError",
    "I",
    "Replay",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "Stepper",
    "Tableau",
    "methods",
    "nn",
    "solve",
]
