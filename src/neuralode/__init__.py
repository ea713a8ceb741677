"""Neural ordinary differential equations in PyTorch.

Examples
--------
>>> import torch, neuralode as node
>>> sol = node.solve(lambda t, y: -y, torch.ones(3), (0.0, 1.0))
>>> sol.ys.shape
torch.Size([2, 3])
"""

from typing import TYPE_CHECKING, Any

from neuralode import nn
from neuralode.control import PI, PID, Fixed, Given, I
from neuralode.events import Event
from neuralode.gradients import Adjoint, Direct, Replay
from neuralode.methods import (
    ExplicitAdams,
    ExplicitRungeKutta,
    ImplicitAdams,
    ImplicitRungeKutta,
    Scipy,
    Tableau,
    methods,
)
from neuralode.problem import Field
from neuralode.solution import Occurrences, Solution, Stats
from neuralode.solving import solve
from neuralode.status import GradientError, SolveError, Status
from neuralode.stepping import Stepper

if TYPE_CHECKING:
    from neuralode.estimators import CNFDensity, LatentODEForecaster, SeriesClassifier

__version__ = "0.1.0"

__all__ = [
    "PI",
    "PID",
    "Adjoint",
    "CNFDensity",
    "Direct",
    "Event",
    "ExplicitAdams",
    "ExplicitRungeKutta",
    "Field",
    "Fixed",
    "Given",
    "GradientError",
    "I",
    "ImplicitAdams",
    "ImplicitRungeKutta",
    "LatentODEForecaster",
    "Occurrences",
    "Replay",
    "Scipy",
    "SeriesClassifier",
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

_ESTIMATORS = ("CNFDensity", "LatentODEForecaster", "SeriesClassifier")


def __getattr__(name: str) -> Any:
    """Estimators need extras (pandas, Lightning …): they are loaded when first asked for."""
    if name not in _ESTIMATORS:
        raise AttributeError(f"module 'neuralode' has no attribute {name!r}")
    from neuralode import estimators

    return getattr(estimators, name)
