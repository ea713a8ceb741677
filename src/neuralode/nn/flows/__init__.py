"""What flows are made of: divergences, fields, base distributions."""

from neuralode.nn.flows.base import StandardNormal
from neuralode.nn.flows.divergence import Exact, Hutchinson, HutchPlusPlus, Rates, products
from neuralode.nn.flows.fields import ConcatSquash, ConcatSquashField, ConvFlowField, HyperPlanarField

__all__ = [
    "ConcatSquash",
    "ConcatSquashField",
    "ConvFlowField",
    "Exact",
    "HutchPlusPlus",
    "Hutchinson",
    "HyperPlanarField",
    "Rates",
    "StandardNormal",
    "products",
]
