"""Layers and models that have a differential equation inside."""

from neuralode.nn.block import NeuralODE, ode_blocks
from neuralode.nn.classify import SeriesNet
from neuralode.nn.cnf import CNF, Costs
from neuralode.nn.evolve import Evolve
from neuralode.nn.flows.base import Moved
from neuralode.nn.latent import Elbo, LatentODE, Trajectory
from neuralode.nn.likelihood import Likelihood
from neuralode.nn.mlp import MLPField, mlp
from neuralode.nn.observations import Observations
from neuralode.nn.odenet import MODELS, ConvField, ODENet, ResidualBlock, ResNet
from neuralode.nn.poisson import PoissonProcess
from neuralode.nn.recurrent import ODERNN, RNN, GRUDecay, Recurrent
from neuralode.nn.tabular import TabularODENet

__all__ = [
    "CNF",
    "MODELS",
    "ODERNN",
    "RNN",
    "ConvField",
    "Costs",
    "Elbo",
    "Evolve",
    "GRUDecay",
    "LatentODE",
    "Likelihood",
    "MLPField",
    "Moved",
    "NeuralODE",
    "ODENet",
    "Observations",
    "PoissonProcess",
    "Recurrent",
    "ResNet",
    "ResidualBlock",
    "SeriesNet",
    "TabularODENet",
    "Trajectory",
    "mlp",
    "ode_blocks",
]
