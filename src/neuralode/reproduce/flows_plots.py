"""The pictures of flows in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from neuralode.data.densities import Density
from neuralode.training.plots import save

PIXELS = 160  # along an axis
DRAWN = 3000  # points
Window = tuple[float, float, float, float]


class Drawable(Protocol):
    """What has a density and samples."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """The log-density."""
        ...

    def sample(self, n: int, generator: Any = ...) -> Tensor:
        """Draw."""
        ...


@dataclass(frozen=True, eq=False)
class Shown:
    """What is drawn of a model: the density on a grid, and points.

    Attributes
    ----------
    density : Tensor[rows, columns]
        From the bottom upwards.
    points : Tensor[points, 2]
        Drawn from it.
    """

    density: Float[Tensor, "rows columns"]
    points: Float[Tensor, "points 2"]

    @classmethod
    def of(cls, model: Drawable, window: Window, pixels: int = PIXELS, points: int = DRAWN) -> Shown:
        """Take both of a model, the density in the window."""
        with torch.no_grad():
            log = torch.cat([model.log_prob(some) for some in pixel_centres(window, pixels).split(1 << 13)])
            drawn = model.sample(points, torch.Generator().manual_seed(0))
        return cls(log.exp().reshape(pixels, pixels), drawn)


def plot_models(truth: Density, models: Mapping[str, Shown], path: Path) -> Path:
    """Draw the truth and each model beside it, points above and density below; return the file written."""
    shown = {truth.name: Shown.of(truth, truth.window), **models}
    left, right, bottom, upper = truth.window
    high = 3.2 * (upper - bottom) / (right - left)
    figure = Figure(figsize=(3.2 * len(shown), 2 * high + 0.4), layout="constrained")
    top = shown[truth.name].density.max().item()
    columns = figure.subplots(2, len(shown), squeeze=False).T
    for (above, below), (name, what) in zip(columns, shown.items(), strict=True):
        above.plot(*what.points.T.numpy(), ".", color="tab:blue", markersize=1.5)
        above.set(xlim=truth.window[:2], ylim=truth.window[2:])
        above.set_title(name, fontsize="medium")
        _show(below, what.density, truth.window, top)
        for axes in (above, below):
            axes.set_aspect("equal")
            axes.set(xticks=[], yticks=[])
    return save(figure, path)


def plot_widths(
    targets: Mapping[str, Float[Tensor, "rows columns"]],
    densities: Mapping[tuple[str, str, int], Float[Tensor, "rows columns"]],
    losses: Mapping[tuple[str, str], Mapping[int, float]],
    window: Window,
    path: Path,
) -> Path:
    """Draw targets, what flows of each size make of them, and what they lose; return the file written.

    Parameters
    ----------
    targets : mapping from target to Tensor[rows, columns]
        A row of pictures each.
    densities : mapping from (target, kind, size) to Tensor[rows, columns]
        In the order of the columns.
    losses : mapping from (target, kind) to a mapping from size to nats
        The curves at the right.
    window : tuple of float
        Of the pictures.
    path : Path
        Where it goes.
    """
    columns = list(dict.fromkeys((kind, size) for _, kind, size in densities))
    figure = Figure(figsize=(1.6 * (len(columns) + 1) + 2.6, 1.75 * len(targets)), layout="constrained")
    widths = [1.0] * (len(columns) + 1) + [1.5]
    grid = figure.subplots(len(targets), len(widths), squeeze=False, width_ratios=widths)
    for row, (target, truth) in zip(grid, targets.items(), strict=True):
        top = truth.max().item()
        _show(row[0], truth, window, top)
        row[0].set_ylabel(target)
        for axes, (kind, size) in zip(row[1:], columns, strict=False):
            _show(axes, densities[target, kind, size], window, top)
        for axes in row[:-1]:
            axes.set(xticks=[], yticks=[])
        _draw_losses(row[-1], {kind: losses[of, kind] for of, kind in losses if of == target})
    titles = ["target", *(f"{kind}, {size}" for kind, size in columns), "KL(q‖p), nats"]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize="small")
    grid[-1][-1].set_xlabel("planar layers, or units", fontsize="small")
    return save(figure, path)


def pixel_centres(window: Window, pixels: int) -> Float[Tensor, "cells 2"]:
    """The middle of each pixel of a window, row by row from the bottom upwards."""
    left, right, bottom, top = window
    place = (torch.arange(pixels) + 0.5) / pixels
    y, x = torch.meshgrid(bottom + (top - bottom) * place, left + (right - left) * place, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def _show(axes: Axes, density: Tensor, window: Window, top: float) -> None:
    # one scale of colours for a truth and its models: what is brighter is likelier
    axes.imshow(density.numpy(), origin="lower", extent=window, vmin=0, vmax=top, cmap="viridis")


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
