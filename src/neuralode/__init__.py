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
from neuralode.controllers import PI, PID, Fixed, Given, I
from neuralode.core.field import Field
from neuralode.core.separable import Separable
from neuralode.core.solution import Occurrences, Solution, Stats
from neuralode.core.status import GradientError, SolveError, Status, StiffnessWarning
from neuralode.gradients import Adjoint, Direct, Replay
from neuralode.inputs.control_inputs import interpolate
from neuralode.inputs.doses import Dose
from neuralode.inputs.events import Event
from neuralode.inputs.interpolation import Interpolation
from neuralode.inputs.steady_state_event import until_steady
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
from neuralode.solver.ensemble import solve_ensemble
from neuralode.solver.solve import solve
from neuralode.solver.stepper import Stepper
from neuralode.steady.steady_state import SteadyState, steady_state

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
