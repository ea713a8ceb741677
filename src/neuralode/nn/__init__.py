"""Layers and models that have a differential equation inside."""

from neuralode.nn.block import NeuralODE, ode_blocks
from neuralode.nn.odenet import MODELS, ConvField, ODENet, ResidualBlock, ResNet

__all__ = ["MODELS", "ConvField", "NeuralODE", "ODENet", "ResNet", "ResidualBlock", "ode_blocks"]
