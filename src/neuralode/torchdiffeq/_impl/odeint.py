"""torchdiffeq's place for the registry of methods and for `odeint`."""

from neuralode.torchdiffeq.dense import odeint_dense
from neuralode.torchdiffeq.events import odeint_event
from neuralode.torchdiffeq.forward import odeint
from neuralode.torchdiffeq.solvers import SOLVERS

__all__ = ["SOLVERS", "odeint", "odeint_dense", "odeint_event"]
