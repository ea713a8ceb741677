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
from neuralode.doses import Dose
from neuralode.ensembles import solve_ensemble
from neuralode.events import Event
from neuralode.gradients import Adjoint, Direct, Replay
from neuralode.interpolation import Interpolation, interpolate
from neuralode.methods import (
    ExplicitAdams,
    ExplicitRungeKutta,
    ImplicitAdams,
    ImplicitRungeKutta,
    Partitioned,
    Scipy,
    Tableau,
    methods,
)
from neuralode.problem import Field
from neuralode.resting import until_steady
from neuralode.separable import Separable
from neuralode.solution import Occurrences, Solution, Stats
from neuralode.solving import solve
from neuralode.status import GradientError, SolveError, Status, StiffnessWarning
from neuralode.steady import SteadyState, steady_state
from neuralode.stepping import Stepper

if TYPE_CHECKING:
    from neuralode.estimators import (
        CNFDensity,
        LatentODEForecaster,
        ODENetClassifier,
        ODENetRegressor,
        SeriesClassifier,
    )

__version__ = "0.1.0"

__all__ = [
    "PI",
    "PID",
    "Adjoint",
    "CNFDensity",
    "Direct",
    "Dose",
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
    "Interpolation",
    "LatentODEForecaster",
    "ODENetClassifier",
    "ODENetRegressor",
    "Occurrences",
    "Partitioned",
    "Replay",
    "Scipy",
    "Separable",
    "SeriesClassifier",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "SteadyState",
    "Stepper",
    "StiffnessWarning",
    "Tableau",
    "interpolate",
    "methods",
    "nn",
    "solve",
    "solve_ensemble",
    "steady_state",
    "until_steady",
]

_ESTIMATORS = ("CNFDensity", "LatentODEForecaster", "ODENetClassifier", "ODENetRegressor", "SeriesClassifier")


def __getattr__(name: str) -> Any:
    """Estimators need extras (pandas, Lightning …): they are loaded when first asked for."""
    if name not in _ESTIMATORS:
        raise AttributeError(f"module 'neuralode' has no attribute {name!r}")
    from neuralode import estimators

    return getattr(estimators, name)
