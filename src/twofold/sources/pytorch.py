"""A PyTorch module traced without weights: built and run on fake tensors, no memory behind them.

`torch:package.module:function` names a function without arguments that returns the module, or
(module, inputs). The module runs once, forward, on one sample; every operation that PyTorch
dispatches is written down. Python's own control flow runs as it is: only what depends on the
values of tensors cannot be traced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twofold.errors import EnvironmentLack, InputError
from twofold.sources.loading import user_function
from twofold.sources.shadow import Shadow
from twofold.sources.torch_forms import FORM_OF, NOT_STEPS, VIEWS, product_of
from twofold.sources.trace import Step, Trace, Value

SEQ_LEN = 128
"""Tokens of the sample where the user states none: the sizes of all else follow in proportion."""
SIDE = 224

_READ_AS_ZERO = "random values that building the module reads, as of initial weights, are 0"


def trace_torch(target: str, *, at: str) -> tuple[Trace, tuple[str, ...]]:
    """The trace of a user's module, and what was assumed of its input."""
    try:
        import torch  # noqa: F401
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as error:
        raise EnvironmentLack(
            "PyTorch is not installed", at=at, help="install twofold[torch]"
        ) from error
    build = user_function(target, at=at)
    with FakeTensorMode(allow_non_fake_inputs=True), _plain_kernels():
        recorder = _Recorder()
        with recorder.recording():
            module, inputs = _built(build, at)
        assumed = [_READ_AS_ZERO] if recorder.zeros else []
        recorder.builds = False
        if inputs is None:
            inputs, text = _sample(module, at)
            assumed.append(f"the input is {text}")
        recorder.name(module, inputs)
        _run(module, inputs, recorder, at)
    trace = Trace(
        framework="PyTorch",
        name=type(module).__name__,
        sample=_sample_text(inputs),
        max_seq_len=_longest(module),
        steps=tuple(recorder.steps),
        values=tuple(recorder.values),
    )
    return trace, tuple(assumed)


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without oneDNN, whose recurrent layers are one opaque operation each."""
    import torch

    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _built(build: Callable[[], Any], at: str) -> tuple[Any, Any]:
    from torch import nn

    try:
        built = build()
    except Exception as error:
        raise InputError(
            f"the function raised {type(error).__name__}: {_first_line(error)}",
            at=_where(error, at),
            help="it is called without arguments, on tensors without values, and returns an "
            "nn.Module or (module, inputs)",
        ) from error
    module, inputs = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"the function returned {type(module).__name__}, not an nn.Module",
            at=at,
            help="return the module, or (module, inputs)",
        )
    return module, inputs


def _sample(module: Any, at: str) -> tuple[Any, str]:
    """One sample for a module whose input nobody stated, from its first layer with weights."""
    import torch
    from torch import nn

    if getattr(module, "main_input_name", "input_ids") == "pixel_values":
        side = getattr(module.config, "image_size", SIDE)
        return {"pixel_values": torch.zeros(1, 3, side, side)}, f"a picture of {side} x {side}"
    for layer in module.modules():
        if isinstance(layer, nn.Embedding):
            length = min(SEQ_LEN, _longest(module) or SEQ_LEN)
            return torch.zeros(1, length, dtype=torch.int64), f"{length} tokens"
        if isinstance(layer, nn.Conv2d):
            return torch.zeros(1, layer.in_channels, SIDE, SIDE), f"a picture of {SIDE} x {SIDE}"
        if isinstance(layer, nn.Linear):
            return torch.zeros(1, layer.in_features), f"{layer.in_features} features"
        if isinstance(layer, nn.RNNBase):
            width = layer.input_size
            return torch.zeros(1, SEQ_LEN, width), f"{SEQ_LEN} steps of {width} features"
    raise InputError(
        "what the module takes as input is not known",
        at=at,
        help="return (module, inputs) from the function: inputs of one sample, a tensor, a tuple "
        "or a dictionary of tensors",
    )


def _longest(module: Any) -> int | None:
    """What the module's own configuration says of its longest sequence, in the field's words."""
    for holder in (getattr(module, "config", None), module):
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "block_size"):
            value = getattr(holder, name, None)
            if type(value) is int and value > 0:
                return value
    return None


def _run(module: Any, inputs: Any, recorder: _Recorder, at: str) -> None:
    try:
        try:
            recorder.run(module.train(), inputs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            recorder.run(module.eval(), inputs)
    except Exception as error:
        kind = type(error).__name__
        help = "correct the module or its inputs; return (module, inputs) to state them"
        if "DataDependent" in kind or "DynamicOutputShape" in kind:
            help = (
                "what the module does depends on the values of a tensor: replace that place for "
                "planning by what it does on average, or import the model's configuration by "
                "hf:./config.json, or write its operators as a TOML of your own"
            )
        raise InputError(
            f"the module cannot be traced: {kind} in {recorder.place or 'forward'}: "
            f"{_first_line(error)}",
            at=_where(error, at),
            help=help,
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _where(error: BaseException, at: str) -> str:
    """The user's own line: the last frame that is not the framework's."""
    import traceback

    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename and "/twofold/" not in frame.filename
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else at


def _sample_text(inputs: Any) -> str:
    import torch
    from torch.utils._pytree import tree_flatten

    tensors = [leaf for leaf in tree_flatten(inputs)[0] if isinstance(leaf, torch.Tensor)]
    return ", ".join(f"{list(t.shape)} {str(t.dtype).partition('.')[2]}" for t in tensors)


class _Recorder:
    """Writes down what PyTorch dispatches. A value is a storage in one of its versions: views
    share it, and an operation in place makes a new one."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.values: list[Value] = []
        self.place = ""
        self.builds, self.zeros = True, 0
        self._shadow = Shadow()
        self._known: dict[int, int] = {}
        self._held: list[Any] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        from torch.utils._python_dispatch import TorchDispatchMode

        recorder = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                kwargs = kwargs or {}
                reads = recorder._read(args, kwargs)
                result = recorder.result(func, args, kwargs)
                recorder._write(func, args, kwargs, reads, result)
                return result

        with Mode():  # type: ignore[no-untyped-call]
            yield

    def result(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What the operation gives. Small values that only building needs are computed; one that
        hangs on a random initial weight is 0, which changes no work."""
        from torch._subclasses.fake_tensor import DataDependentOutputException

        if not self.builds:
            return func(*args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except DataDependentOutputException:
            known = self._shadow.scalar(args[0])
            if known is not None:
                return known
            self.zeros += 1
            return 0.0 if args[0].is_floating_point() else 0
        self._shadow.follow(func, args, kwargs, result)
        return result

    def name(self, module: Any, inputs: Any) -> None:
        """Say which storages are parameters and which inputs."""
        import torch
        from torch.utils._pytree import tree_flatten

        for name, parameter in module.named_parameters():
            self._new(parameter, "parameter", name, parameter.requires_grad)
        for leaf in tree_flatten(inputs)[0]:
            if isinstance(leaf, torch.Tensor):
                self._new(leaf, "input", "input", False)

    def run(self, module: Any, inputs: Any) -> None:
        before = len(self.steps)
        hooks = self._hooks(module)
        try:
            with self.recording():
                if isinstance(inputs, Mapping):
                    module(**inputs)
                elif isinstance(inputs, tuple | list):
                    module(*inputs)
                else:
                    module(inputs)
        except Exception:
            del self.steps[before:]
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _hooks(self, module: Any) -> list[Any]:
        """Keep `place` at the module that runs. Where one fails it stays, for the message."""
        stack: list[str] = []
        hooks: list[Any] = []
        for name, part in module.named_modules():

            def enter(_: Any, __: Any, name: str = name) -> None:
                stack.append(name)
                self.place = name

            def leave(_: Any, __: Any, ___: Any) -> None:
                stack.pop()
                self.place = stack[-1] if stack else ""

            hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
        return hooks

    def _new(self, tensor: Any, origin: Any, name: str, trainable: bool) -> int:
        self._held.append(tensor)
        self._known[tensor.untyped_storage()._cdata] = len(self.values)
        shape = tuple(int(side) for side in tensor.shape)
        self.values.append(Value(shape=shape, origin=origin, name=name, trainable=trainable))
        return len(self.values) - 1

    def _value(self, tensor: Any) -> int:
        known = self._known.get(tensor.untyped_storage()._cdata)
        return self._new(tensor, "constant", "", False) if known is None else known

    def _read(self, args: Any, kwargs: Any) -> tuple[int, ...]:
        import torch
        from torch.utils._pytree import tree_flatten

        leaves = tree_flatten((args, kwargs))[0]
        return tuple(self._value(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))

    def _write(
        self, func: Any, args: Any, kwargs: Any, reads: tuple[int, ...], result: Any
    ) -> None:
        import torch
        from torch.utils._pytree import tree_flatten

        word = func.overloadpacket.__name__
        if word in NOT_STEPS:
            return
        results = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        changes = func._schema.is_mutable
        if word.rstrip("_") in VIEWS:
            return
        writes = tuple(
            self._new(leaf, "step", "", False)
            for leaf in results
            if changes or leaf.untyped_storage()._cdata not in self._known
        )
        if not writes:
            return
        product = product_of(word, args, results)
        form = FORM_OF.get(word.rstrip("_") if word.endswith("_") else word, word)
        if not reads and form not in ("triangle", "iota"):
            form = "constant"
        order = _operands_first(word, reads)
        self.steps.append(
            Step(
                form=form,
                name=".".join(part for part in (self.place, word.strip("_")) if part),
                source=f"aten.{word}",
                reads=order,
                writes=writes,
                product=product,
                causal=form == "attention" and _says_causal(func, args, kwargs),
            )
        )


def _operands_first(word: str, reads: tuple[int, ...]) -> tuple[int, ...]:
    """addmm and baddbmm name what they add first."""
    return (*reads[1:], reads[0]) if word in ("addmm", "baddbmm") else reads


def _says_causal(func: Any, args: Any, kwargs: Any) -> bool:
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "is_causal":
            value = args[place] if place < len(args) else kwargs.get("is_causal", False)
            return bool(value)
    return False
