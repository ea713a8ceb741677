"""The surroundings of a forward pass, to evaluate f again under the same: autocast, train or eval, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.autodiff.captured import modules_of


@dataclass(frozen=True)
class ForwardContext:
    """Autocast, the train/eval flags of the modules of f, and the state of the random generators."""

    modules: tuple[nn.Module, ...]
    training: tuple[tuple[nn.Module, bool], ...]
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    random: Tensor
    device_random: Tensor | None
    device: torch.device

    @contextmanager
    def restored(self) -> Iterator[None]:
        """As it was; afterwards everything, with the buffers that f updates, is as it is now."""
        buffers = [(b, b._version, b.clone()) for module in self.modules for b in module.buffers()]
        now = [(module, module.training) for module, flag in self.training if module.training != flag]
        devices = [] if self.device_random is None else [self.device]
        with ExitStack() as stack:
            stack.enter_context(
                torch.random.fork_rng(devices=devices, device_type=self.device.type if devices else "cuda")
            )
            torch.set_rng_state(self.random)
            if self.device_random is not None:
                torch.get_device_module(self.device).set_rng_state(self.device_random, self.device)
            for kind, enabled, dtype in self.autocast:
                # casts cached here would keep the graph of one step alive in the next
                stack.enter_context(torch.autocast(kind, dtype, enabled, cache_enabled=False))
            for module, flag in self.training:
                module.training = flag
            try:
                yield
            finally:
                for module, flag in now:
                    module.training = flag
                with torch.no_grad():
                    for buffer, version, before in buffers:
                        if buffer._version != version:
                            buffer.copy_(before)


def capture_context(f: Any, device: torch.device) -> ForwardContext:
    """The ambient of this moment."""
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
