"""Save and restore the state of the global random generators, as plain numbers and tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

RNGState = dict[str, Any]


def get_rng_state() -> RNGState:
    """Return the state of the global generators of torch (CPU and CUDA), numpy and Python.

    Examples
    --------
    >>> state = get_rng_state()
    >>> first = torch.rand(2), np.random.rand(), random.random()
    >>> set_rng_state(state)
    >>> again = torch.rand(2), np.random.rand(), random.random()
    >>> torch.equal(first[0], again[0]), first[1:] == again[1:]
    (True, True)
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        # As a tensor: checkpoints are loaded without unpickling.
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "python": random.getstate(),
    }


def set_rng_state(state: RNGState) -> None:
    """Restore a state returned by `get_rng_state`. CUDA is skipped if the number of devices differs."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    random.setstate(state["python"])
