"""torchdiffeq's interface to this solver: replace ``import torchdiffeq`` by ``import neuralode.torchdiffeq``.

Signatures, options, warnings and types of errors are those of torchdiffeq 0.2.5, with the further methods of its
repository. Results agree with torchdiffeq's to the tolerances; docs/torchdiffeq.md explains every difference.

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
from neuralode.torchdiffeq.install import install, uninstall
from neuralode.torchdiffeq.odeint import odeint, odeint_dense, odeint_event
from neuralode.torchdiffeq.solvers import SOLVERS

__version__ = "0.2.5"  # the version of torchdiffeq's interface, which projects compare

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
