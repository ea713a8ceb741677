"""The context of a forward pass, in which backward evaluates f again: autocast, training modes, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralode.autodiff.captured import modules_of


@dataclass(frozen=True)
class ForwardContext:
    """Autocast, the training modes of the modules of f, and the states of random generators.

    Parameters
    ----------
    modules : tuple of Module
        The modules that f uses.
    training : tuple of (Module, bool)
        Each of these modules and their submodules, and whether it was in training mode.
    autocast : tuple of (str, bool, torch.dtype)
        For each device type whether autocast was enabled, and its dtype.
    random, device_random : Tensor
        The states of the random generators of the CPU and of ``device``; None for the latter on the CPU.
    device : torch.device
        The device of the state.
    """

    modules: tuple[nn.Module, ...]
    training: tuple[tuple[nn.Module, bool], ...]
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    random: Tensor
    device_random: Tensor | None
    device: torch.device

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the context of the forward pass; at exit undo this, and undo updates of buffers by f."""
        buffers = [(b, b._version, b.clone()) for module in self.modules for b in module.buffers()]
        changed = [(module, module.training) for module, flag in self.training if module.training != flag]
        devices = [] if self.device_random is None else [self.device]
        with ExitStack() as stack:
            stack.enter_context(
                torch.random.fork_rng(devices=devices, device_type=self.device.type if devices else "cuda")
            )
            torch.set_rng_state(self.random)
            if self.device_random is not None:
                torch.get_device_module(self.device).set_rng_state(self.device_random, self.device)
            for kind, enabled, dtype in self.autocast:
                # Without a cache: cached casts would keep the graph of one step alive in the next.
                stack.enter_context(torch.autocast(kind, dtype, enabled, cache_enabled=False))
            for module, flag in self.training:
                module.training = flag
            try:
                yield
            finally:
                for module, flag in changed:
                    module.training = flag
                with torch.no_grad():
                    for buffer, version, before in buffers:
                        if buffer._version != version:
                            buffer.copy_(before)


def capture_context(f: object, device: torch.device) -> ForwardContext:
    """Return the present context, for an f on a device."""
    modules = tuple(modules_of(f))
    kinds = {"cpu", device.type}
    accelerator = None if device.type == "cpu" else torch.get_device_module(device)
    return ForwardContext(
        modules=modules,
        training=tuple((m, m.training) for module in modules for m in module.modules()),
        autocast=tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in sorted(kinds)
            if torch.amp.is_autocast_available(kind)
        ),
        random=torch.get_rng_state(),
        device_random=None if accelerator is None else accelerator.get_rng_state(device),
        device=device,
    )
