"""Where the generators of random numbers stand: kept as plain numbers and tensors, and set again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def random_state() -> State:
    """Where the global generators of torch, of its accelerators, of numpy and of Python stand.

    Examples
    --------
    >>> state = random_state()
    >>> first = torch.rand(2), np.random.rand(), random.random()
    >>> set_random_state(state)
    >>> again = torch.rand(2), np.random.rand(), random.random()
    >>> torch.equal(first[0], again[0]), first[1:] == again[1:]
    (True, True)
    """
    name, keys, place, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        # as a tensor: a checkpoint holds nothing that would have to be unpickled
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached),
        "python": random.getstate(),
    }


def set_random_state(state: State) -> None:
    """Let the generators stand where they stood; see `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    random.setstate(state["python"])
