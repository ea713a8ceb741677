"""The names of torchdiffeq's ``_impl.adjoint``."""

from neuralode.torchdiffeq.adjoint import find_parameters, odeint_adjoint
from neuralode.torchdiffeq.adjoint_equation import OdeintAdjointMethod

__all__ = ["OdeintAdjointMethod", "find_parameters", "odeint_adjoint"]
