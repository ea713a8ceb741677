"""Layers and models with a differential equation inside."""

from neuralode.nn.block import NeuralODE, ode_blocks
from neuralode.nn.flows.cnf import CNF, Costs
from neuralode.nn.flows.flow import Moved
from neuralode.nn.images.odenet import MODELS, ConvField, ODENet, ResidualBlock, ResNet
from neuralode.nn.mlp import MLPField, mlp
from neuralode.nn.series.classifier import SeriesNet
from neuralode.nn.series.elbo import Elbo
from neuralode.nn.series.evolve import Evolve
from neuralode.nn.series.latent_ode import LatentODE, Trajectory
from neuralode.nn.series.likelihood import Likelihood
from neuralode.nn.series.observations import Observations
from neuralode.nn.series.poisson_process import PoissonProcess
from neuralode.nn.series.recurrent import ODERNN, RNN, GRUDecay, Recurrent
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
