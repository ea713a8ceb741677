"""torchdiffeq's private module layout, for packages that import from it."""

from neuralode.torchdiffeq._impl import adjoint, misc, solvers
from neuralode.torchdiffeq._impl.adjoint import odeint_adjoint
from neuralode.torchdiffeq._impl.odeint import odeint, odeint_dense, odeint_event

__all__ = ["adjoint", "misc", "odeint", "odeint_adjoint", "odeint_dense", "odeint_event", "solvers"]
