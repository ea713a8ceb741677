"""torchdiffeq's place for `odeint_adjoint`."""

from neuralode.torchdiffeq.adjoint import find_parameters, odeint_adjoint
from neuralode.torchdiffeq.backwards import OdeintAdjointMethod

__all__ = ["OdeintAdjointMethod", "find_parameters", "odeint_adjoint"]
