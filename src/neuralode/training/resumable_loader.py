"""A data loader that can continue in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from neuralode.training.rng_state import RNGState, get_rng_state, set_rng_state

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Loader(Protocol[T_co]):
    """Batches of an epoch, whose order depends only on the random state at its start."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...


@dataclass(frozen=True)
class EpochPosition:
    """Position within an epoch.

    Attributes
    ----------
    rng_state : dict
        State of the random generators at the start of the epoch.
    batches : int
        Number of batches already yielded.
    """

    rng_state: RNGState
    batches: int


class ResumableLoader(Generic[T]):
    """Wrap a loader and track the position within the epoch.

    To continue at a position, the random state of the start of that epoch is restored and the batches before the
    position are drawn and dropped. The random state is then set back to what it was.

    Parameters
    ----------
    loader : iterable with a length
        Source of the batches. It draws from the global generators, or from one that is seeded by the epoch.

    Attributes
    ----------
    position : EpochPosition
        Current position.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader
    >>> batches = ResumableLoader(DataLoader(torch.arange(6), 2, shuffle=True))
    >>> epoch = iter(batches)
    >>> _ = next(epoch)
    >>> position = batches.position
    >>> rest = [batch.tolist() for batch in epoch]
    >>> batches.seek(position)
    >>> [batch.tolist() for batch in batches] == rest
    True
    """

    def __init__(self, loader: Loader[T]) -> None:
        self.loader = loader
        self.position = EpochPosition({}, 0)
        self._target: EpochPosition | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[T]:
        # A generator: its body runs at the first `next`, by which time `seek` has been called.
        target, self._target = self._target, None
        current = get_rng_state()
        if target is not None:
            set_rng_state(target.rng_state)
        self.position = target or EpochPosition(current, 0)
        batches = iter(self.loader)
        if target is not None:
            for _ in range(target.batches):
                next(batches)
            set_rng_state(current)
        for batch in batches:
            self.position = EpochPosition(self.position.rng_state, self.position.batches + 1)
            yield batch

    def seek(self, position: EpochPosition) -> None:
        """Start the next iteration at a position instead of at the beginning."""
        self._target = position
