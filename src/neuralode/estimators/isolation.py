"""Isolation of `fit` from global state: random generators, default dtype, gradient mode, earlier fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from sklearn.utils import check_random_state

F = TypeVar("F", bound=Callable[..., Any])


def isolated(fit: F) -> F:
    """Decorate a ``fit`` method: ignore the global default dtype and gradient mode, and undo a fit that fails.

    Networks are created in float32, and gradients are recorded. When ``fit`` raises, the attributes of the estimator
    are restored to those before the call.
    """

    @wraps(fit)
    def isolated_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            with torch.inference_mode(False), torch.enable_grad(), default_float32():
                return fit(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return cast(F, isolated_fit)


@contextmanager
def default_float32() -> Iterator[None]:
    """Set torch's default dtype to float32 inside the context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def forked_rng(seed: int) -> Iterator[None]:
    """Seed torch's random generators inside the context, and restore their states on exit.

    Examples
    --------
    >>> with forked_rng(0):
    ...     first = torch.rand(1)
    >>> with forked_rng(0):
    ...     bool(torch.rand(1) == first)
    True
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def seed_from(random_state: Any) -> int:
    """Return a seed drawn from ``random_state``, as scikit-learn defines it.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        None gives a new seed on every call, and leaves numpy's global random state unchanged.

    Examples
    --------
    >>> seed_from(0) == seed_from(np.random.RandomState(0)), seed_from(None) == seed_from(None)
    (True, False)
    """
    generator = np.random.RandomState() if random_state is None else check_random_state(random_state)
    return int(generator.randint(2**31 - 1))
