"""Deprecated path of `neuralode.nn.flows.coupling`."""

import warnings

from neuralode.nn.flows.coupling import COUPLINGS, optimal_transport

__all__ = ["COUPLINGS", "optimal_transport"]

warnings.warn(
    "neuralode.train.coupling has moved; import neuralode.nn.flows.coupling instead.", DeprecationWarning, stacklevel=2
)
