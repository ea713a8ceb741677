"""The interface of torchdiffeq on this solver: ``import neuralode.torchdiffeq as torchdiffeq`` is all that changes.

Signatures, options, warnings and types of errors are torchdiffeq's, level 0.2.5 with the methods of its repository. The
numbers agree with its own to the tolerances; where they do not, docs/torchdiffeq.md says why.

Examples
--------
>>> import torch
>>> import neuralode.torchdiffeq as torchdiffeq
>>> ys = torchdiffeq.odeint(lambda t, y: -y, torch.ones(2), torch.linspace(0, 1, 5), method="rk4")
>>> ys.shape
torch.Size([5, 2])
"""

from neuralode.torchdiffeq import _impl
from neuralode.torchdiffeq.adjoint import find_parameters, odeint_adjoint
from neuralode.torchdiffeq.dense import odeint_dense
from neuralode.torchdiffeq.events import odeint_event
from neuralode.torchdiffeq.forward import odeint
from neuralode.torchdiffeq.install import install, uninstall
from neuralode.torchdiffeq.solvers import SOLVERS

__version__ = "0.2.5"  # of the interface: what projects compare

__all__ = [
    "SOLVERS",
    "__version__",
    "_impl",
    "find_parameters",
    "install",
    "odeint",
    "odeint_adjoint",
    "odeint_dense",
    "odeint_event",
    "uninstall",
]
