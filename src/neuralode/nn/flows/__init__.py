"""Flows: fields, divergences, base distributions, flow matching, guidance and sampling."""

from neuralode.nn.flows.augmented import Augmented
from neuralode.nn.flows.base_distribution import StandardNormal
from neuralode.nn.flows.divergence import Exact, Hutchinson, HutchPlusPlus, Rates
from neuralode.nn.flows.fields import ConcatSquashField, ConvFlowField, HyperPlanarField
from neuralode.nn.flows.flow_matching import flow_matching_loss
from neuralode.nn.flows.guidance import Guided, drop_condition
from neuralode.nn.flows.jacobian_products import products
from neuralode.nn.flows.planar import PlanarFlow
from neuralode.nn.flows.probability_paths import PATHS, Cosine, Linear, Path, VariancePreserving, find_path
from neuralode.nn.flows.residual_field import ResidualField
from neuralode.nn.flows.sampling import Sampled, grid_times, sample

__all__ = [
    "PATHS",
    "Augmented",
    "ConcatSquashField",
    "ConvFlowField",
    "Cosine",
    "Exact",
    "Guided",
    "HutchPlusPlus",
    "Hutchinson",
    "HyperPlanarField",
    "Linear",
    "Path",
    "PlanarFlow",
    "Rates",
    "ResidualField",
    "Sampled",
    "StandardNormal",
    "VariancePreserving",
    "drop_condition",
    "find_path",
    "flow_matching_loss",
    "grid_times",
    "products",
    "sample",
]
