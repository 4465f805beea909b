"""Real values of the small tensors with which a PyTorch module computes its own shape.

Fake tensors have none; a network that derives its widths or rates from tensors needs them.
"""

from __future__ import annotations

from typing import Any

_MOST_ELEMENTS = 4096


class Shadow:
    """A real tensor beside each small fake one, as long as nothing random went into it."""

    def __init__(self) -> None:
        self._real: dict[int, tuple[Any, Any]] = {}

    def scalar(self, tensor: Any) -> Any:
        """The number that a fake tensor stands for, None where it is not known."""
        from torch.utils._python_dispatch import _disable_current_modes

        known = self._of(tensor)
        with _disable_current_modes():
            return None if known is None else known.item()

    def follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Do to the real tensors what was done to the fake ones."""
        import torch
        from torch.utils._python_dispatch import _disable_current_modes
        from torch.utils._pytree import tree_flatten, tree_map_only

        fakes = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        known = all(self._of(leaf) is not None for leaf in given)
        random = torch.Tag.nondeterministic_seeded in func.tags
        empty = "empty" in func.overloadpacket.__name__
        large = any(leaf.numel() > _MOST_ELEMENTS for leaf in fakes)
        if not fakes or not known or random or empty or large:
            for leaf in fakes:
                self._real.pop(id(leaf), None)
            return
        with _disable_current_modes():
            real_args, real_kwargs = tree_map_only(torch.Tensor, self._of, (args, kwargs))
            outputs = tree_flatten(func(*real_args, **real_kwargs))[0]
        reals = [leaf for leaf in outputs if isinstance(leaf, torch.Tensor)]
        for fake, real in zip(fakes, reals, strict=True):
            self._real[id(fake)] = fake, real

    def _of(self, tensor: Any) -> Any:
        from torch._subclasses.fake_tensor import FakeTensor

        if not isinstance(tensor, FakeTensor):
            return tensor
        if tensor.constant is not None:
            return tensor.constant
        return self._real.get(id(tensor), (None, None))[1]
