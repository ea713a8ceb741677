"""Batches that can be gone on with in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from neuralode.training.rng_state import State, random_state, set_random_state

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Loader(Protocol[T_co]):
    """Batches of an epoch, whose order is a function of how the random generators stand as it begins."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...


@dataclass(frozen=True)
class Place:
    """Where in an epoch a training is.

    Attributes
    ----------
    begun : dict
        How the random generators stood as the epoch began.
    given : int
        Batches that it has had.
    """

    begun: State
    given: int


class Resumable(Generic[T]):
    """A loader, and the place in it.

    Going back to a place begins the epoch again as it was begun and passes over the batches that were had: they are
    drawn, but nothing is computed on them. Afterwards the generators stand as they did before.

    Parameters
    ----------
    loader : iterable with a length
        What gives the batches. It draws from global generators, or from one that is seeded by the epoch.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader
    >>> batches = Resumable(DataLoader(torch.arange(6), 2, shuffle=True))
    >>> epoch = iter(batches)
    >>> _ = next(epoch)
    >>> place = batches.place
    >>> rest = [batch.tolist() for batch in epoch]
    >>> batches.go_to(place)
    >>> [batch.tolist() for batch in batches] == rest
    True
    """

    def __init__(self, loader: Loader[T]) -> None:
        self.loader = loader
        self.place = Place({}, 0)
        self._wanted: Place | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[T]:
        # a generator: nothing is drawn before the first batch is asked for, by when `go_to` has been called
        wanted, self._wanted = self._wanted, None
        now = random_state()
        if wanted is not None:
            set_random_state(wanted.begun)
        self.place = wanted or Place(now, 0)
        batches = iter(self.loader)
        if wanted is not None:
            for _ in range(wanted.given):
                next(batches)
            set_random_state(now)
        for batch in batches:
            self.place = Place(self.place.begun, self.place.given + 1)
            yield batch

    def go_to(self, place: Place) -> None:
        """Let the next epoch begin in the middle."""
        self._wanted = place
