"""Plots of two-dimensional densities and flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from neuralode.data.densities import Density
from neuralode.training.plots import save_figure

PIXELS = 160  # per axis
SAMPLES = 3000  # points drawn from each density
CHUNK = 1 << 13  # grid points evaluated at once
Window = tuple[float, float, float, float]  # left, right, bottom, top


class DensityModel(Protocol):
    """A distribution in the plane with a log-density and samples."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """Return the log-density of each point."""
        ...

    def sample(self, n: int, generator: torch.Generator | None = ..., /) -> Tensor:
        """Draw n points."""
        ...


@dataclass(frozen=True, eq=False)
class PlotData:
    """Density on a grid, and samples, of one model.

    Attributes
    ----------
    density : Tensor[rows, columns]
        Density at the pixel centres; the first row is the bottom one.
    points : Tensor[points, 2]
        Samples.
    """

    density: Float[Tensor, "rows columns"]
    points: Float[Tensor, "points 2"]

    @classmethod
    def from_model(cls, model: DensityModel, window: Window) -> PlotData:
        """Evaluate a model on the pixels of a window and draw samples from it."""
        with torch.no_grad():
            log_density = torch.cat([model.log_prob(x) for x in pixel_centres(window, PIXELS).split(CHUNK)])
            points = model.sample(SAMPLES, torch.Generator().manual_seed(0))
        return cls(log_density.exp().reshape(PIXELS, PIXELS), points)


def plot_models(truth: Density, models: Mapping[str, PlotData], path: Path) -> Path:
    """Plot the true density and those of models in columns: samples above, density below; return the path."""
    columns = {truth.name: PlotData.from_model(truth, truth.window), **models}
    left, right, bottom, top = truth.window
    height = 3.2 * (top - bottom) / (right - left)
    figure = Figure(figsize=(3.2 * len(columns), 2 * height + 0.4), layout="constrained")
    highest = columns[truth.name].density.max().item()
    grid = figure.subplots(2, len(columns), squeeze=False).T
    for (above, below), (name, data) in zip(grid, columns.items(), strict=True):
        above.plot(*data.points.T.numpy(), ".", color="tab:blue", markersize=1.5)
        above.set(xlim=truth.window[:2], ylim=truth.window[2:])
        above.set_title(name, fontsize="medium")
        _draw_density(below, data.density, window=truth.window, highest=highest)
        for axes in (above, below):
            axes.set_aspect("equal")
            axes.set(xticks=[], yticks=[])
    return save_figure(figure, path)


def plot_sizes(
    targets: Mapping[str, Float[Tensor, "rows columns"]],
    densities: Mapping[tuple[str, str, int], Float[Tensor, "rows columns"]],
    *,
    losses: Mapping[tuple[str, str], Mapping[int, float]],
    window: Window,
    path: Path,
) -> Path:
    """Plot target densities, the densities of flows of each size, and their divergences; return the path.

    Parameters
    ----------
    targets : mapping from target to Tensor[rows, columns]
        One row of images for each target.
    densities : mapping from (target, kind, size) to Tensor[rows, columns]
        One column of images for each kind and size, in this order.
    losses : mapping from (target, kind) to a mapping from size to nats
        The curves in the last column.
    window : tuple of float
        Left, right, bottom and top of every image.
    path : Path
        File to write.
    """
    columns = list(dict.fromkeys((kind, size) for _, kind, size in densities))
    figure = Figure(figsize=(1.6 * (len(columns) + 1) + 2.6, 1.75 * len(targets)), layout="constrained")
    widths = [1.0] * (len(columns) + 1) + [1.5]
    grid = figure.subplots(len(targets), len(widths), squeeze=False, width_ratios=widths)
    for row, (target, truth) in zip(grid, targets.items(), strict=True):
        highest = truth.max().item()
        _draw_density(row[0], truth, window=window, highest=highest)
        row[0].set_ylabel(target)
        for axes, (kind, size) in zip(row[1:], columns, strict=False):
            _draw_density(axes, densities[target, kind, size], window=window, highest=highest)
        for axes in row[:-1]:
            axes.set(xticks=[], yticks=[])
        _draw_losses(row[-1], {kind: losses[name, kind] for name, kind in losses if name == target})
    titles = ["target", *(f"{kind}, {size}" for kind, size in columns), "KL(q‖p), nats"]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize="small")
    grid[-1][-1].set_xlabel("planar layers, or units", fontsize="small")
    return save_figure(figure, path)


def pixel_centres(window: Window, pixels: int) -> Float[Tensor, "cells 2"]:
    """Return the centre of each pixel of a window, row by row from the bottom."""
    left, right, bottom, top = window
    fraction = (torch.arange(pixels) + 0.5) / pixels
    y, x = torch.meshgrid(bottom + (top - bottom) * fraction, left + (right - left) * fraction, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def _draw_density(axes: Axes, density: Tensor, *, window: Window, highest: float) -> None:
    # One colour scale for a target and all of its models.
    axes.imshow(density.numpy(), origin="lower", extent=window, vmin=0, vmax=highest, cmap="viridis")


def _draw_losses(axes: Axes, curves: Mapping[str, Mapping[int, float]]) -> None:
    sizes: Sequence[int] = sorted({size for curve in curves.values() for size in curve})
    for kind, curve in curves.items():
        axes.plot([sizes.index(size) for size in curve], list(curve.values()), marker="o", markersize=4, label=kind)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yscale("log")
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="x-small")
