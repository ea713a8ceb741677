"""The names of torchdiffeq's ``_impl.odeint``."""

from neuralode.torchdiffeq.odeint import odeint, odeint_dense, odeint_event
from neuralode.torchdiffeq.solvers import SOLVERS

__all__ = ["SOLVERS", "odeint", "odeint_dense", "odeint_event"]
