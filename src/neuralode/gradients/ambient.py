"""The surroundings of a forward pass, to evaluate f again under the same: autocast, train or eval, random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from neuralode.separable import Separable


def modules_of(f: Any) -> list[nn.Module]:
    """The modules that f is, is a method of, or closes over."""
    while isinstance(f, partial):
        f = f.func
    if isinstance(f, Separable):
        parts = [part for part in (f.velocity, f.force) if not isinstance(part, nn.Module)]
        return [f, *(module for part in parts for module in modules_of(part))]
    if isinstance(f, nn.Module):
        return [f]
    if isinstance(owner := getattr(f, "__self__", None), nn.Module):
        return [owner]
    cells = getattr(f, "__closure__", None) or ()
    held = [cell.cell_contents for cell in cells if cell.cell_contents is not f] if _filled(cells) else []
    return [x for x in held if isinstance(x, nn.Module)]


def _filled(cells: Any) -> bool:
    try:
        return all(cell.cell_contents is not cells for cell in cells)
    except ValueError:  # a name not yet bound
        return False


class Watch(TorchFunctionMode):
    """Notes the differentiable tensors that enter from outside while it is on.

    Tensors made while watching are not from outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside: dict[int, Tensor] = {}  # holding them keeps their ids from being used again
        self.found: dict[int, Tensor] = {}

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in tree_iter((args, kwargs)):
            self.note(x)
        result = func(*args, **(kwargs or {}))
        for x in tree_iter(result):
            if isinstance(x, Tensor) and id(x) not in self.found:
                self.inside[id(x)] = x
        return result

    def note(self, x: Any) -> None:
        """Keep what is a differentiable tensor from outside."""
        if isinstance(x, Tensor) and id(x) not in self.inside and _differentiable(x):
            self.found[id(x)] = x


def _differentiable(x: Tensor) -> bool:
    return x.requires_grad and not is_functorch_wrapped_tensor(x)


def transforming() -> bool:
    """Whether a transform of `torch.func`, or forward-mode differentiation, is going on around this call.

    These follow every operation by themselves, and tensors that they follow need not say so by ``requires_grad``.
    """
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def followed(x: Tensor) -> bool:
    """Whether derivatives by ``x`` are wanted, in whatever way."""
    return x.requires_grad or (
        transforming() and (is_functorch_wrapped_tensor(x) or forward_ad.unpack_dual(x).tangent is not None)
    )


def watch(evaluate: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
    """Evaluate without a graph; also return the differentiable tensors that it used."""
    with torch.no_grad(), Watch() as seen:
        answer = evaluate()
    for x in tree_iter(answer):
        seen.note(x)  # what is returned as it is has met no operation
    return answer, list(seen.found.values())


@dataclass(frozen=True)
class Ambient:
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


def surroundings(f: Any, device: torch.device) -> Ambient:
    """The ambient of this moment."""
    modules = tuple(modules_of(f))
    kinds = {"cpu", device.type}
    accelerator = None if device.type == "cpu" else torch.get_device_module(device)
    return Ambient(
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
