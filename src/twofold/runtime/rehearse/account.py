"""Counts what a rank sends, as the operations that it hands to its process groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd", "_dtensor")
_KINDS = {
    "all_reduce": ("allreduce_", "all_reduce", "all_reduce_"),
    "all_gather": ("allgather_", "_allgather_base_", "all_gather_into_tensor"),
    "reduce_scatter": ("_reduce_scatter_base_", "reduce_scatter_tensor"),
    "all_to_all": ("alltoall_base_", "alltoall_", "all_to_all_single"),
    "broadcast": ("broadcast_", "broadcast"),
    "send": ("send",),
    "receive": ("recv_",),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_SILENT = ("wait_tensor", "_wrap_tensor_autograd", "barrier", "monitored_barrier_")


@dataclass(slots=True)
class Traffic:
    """Calls and bytes: of the whole buffer on the ranks' side that is larger."""

    calls: int = 0
    bytes: int = 0


@dataclass
class Account(TorchDispatchMode):
    """Traffic by (axis, kind). `axes` names the process groups."""

    axes: Mapping[str, str]
    traffic: dict[tuple[str, str], Traffic] = field(default_factory=dict)

    _counts: bool = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._counts = False
        yield
        self._counts = True

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __hash__(self) -> int:
        return id(self)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        namespace, name = func._schema.name.split("::")
        out = func(*args, **(kwargs or {}))
        if self._counts and namespace in _NAMESPACES and name not in _SILENT:
            self._count(name, args, out)
        return out

    def _count(self, name: str, args: tuple[Any, ...], out: Any) -> None:
        kind = _KIND_OF[name]
        axis = self.axes[_group_name(args)]
        entry = self.traffic.setdefault((axis, kind), Traffic())
        entry.calls += 1
        entry.bytes += max(_bytes_of(argument) for argument in (*args, out))


def _bytes_of(argument: Any) -> int:
    if isinstance(argument, Tensor):
        return argument.numel() * argument.element_size()
    if isinstance(argument, list | tuple):
        return sum(_bytes_of(item) for item in argument)
    return 0


def _group_name(args: tuple[Any, ...]) -> str:
    for argument in args:
        if isinstance(argument, torch.ScriptObject):
            try:
                return str(dist.ProcessGroup.unbox(argument).group_name)
            except (RuntimeError, ValueError):
                continue
    names = [argument for argument in args if isinstance(argument, str)]
    return names[-1]
