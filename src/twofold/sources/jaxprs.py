"""A JAX function traced: its jaxpr, on shapes alone, calls inlined and scans unrolled.

`jax:package.module:function` names a function without arguments that returns (apply, params,
inputs): `apply(params, *inputs)` is traced. Params and inputs may be arrays or
`jax.ShapeDtypeStruct`s. A Flax module may stand for apply, with `None` for params: its own
`init` then says their shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from twofold.errors import EnvironmentLack, InputError
from twofold.sources.jax_forms import CALLS, FORM_OF, VIEWS
from twofold.sources.loading import user_function
from twofold.sources.trace import Product, Step, Trace, Value


def trace_jax(target: str, *, at: str) -> tuple[Trace, tuple[str, ...]]:
    """The trace of a user's function."""
    try:
        import jax
    except ImportError as error:
        raise EnvironmentLack("JAX is not installed", at=at, help="install twofold[jax]") from error
    build = user_function(target, at=at)
    try:
        built = build()
    except Exception as error:
        raise InputError(
            f"the function raised {type(error).__name__}: {error}",
            at=at,
            help="it is called without arguments and returns (apply, params, inputs)",
        ) from error
    if not isinstance(built, tuple) or len(built) != 3:
        raise InputError(
            f"the function returned {type(built).__name__}, not (apply, params, inputs)",
            at=at,
            help="return the function to trace, its parameters or their shapes, and its inputs",
        )
    apply, params, inputs = built
    inputs = inputs if isinstance(inputs, tuple | list) else (inputs,)
    if params is None and hasattr(apply, "init"):
        params = jax.eval_shape(apply.init, jax.random.key(0), *inputs)
    function = getattr(apply, "apply", apply)
    name = getattr(apply, "__name__", type(apply).__name__)
    return trace_function(function, (params,), inputs, name=name, framework="JAX", at=at), ()


def trace_function(
    function: Any, weights: tuple[Any, ...], inputs: Sequence[Any], *, name: str, framework: str,
    at: str, frozen: tuple[Any, ...] = (),
) -> Trace:  # fmt: skip
    """The trace of `function(*weights, *frozen, *inputs)`; `frozen` are states, not parameters."""
    import jax

    arguments = jax.tree_util.tree_map(_shape_of, (*weights, *frozen, *inputs))
    try:
        closed = jax.make_jaxpr(function)(*arguments)
    except Exception as error:
        kind = type(error).__name__
        raise InputError(
            f"the function cannot be traced: {kind}: {str(error).strip().splitlines()[0][:200]}",
            at=at,
            help="what it does may depend on shapes, not on values of arrays; replace such places "
            "for planning by what they do on average",
        ) from error
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(arguments)]
    counts = [len(jax.tree_util.tree_leaves(part)) for part in (weights, frozen, inputs)]
    origins = ["parameter"] * counts[0] + ["constant"] * counts[1] + ["input"] * counts[2]
    walk = _Walk()
    ids = [
        walk.new(var.aval.shape, origin=origin, name=path)
        for var, origin, path in zip(closed.jaxpr.invars, origins, paths, strict=True)
    ]
    consts = [walk.new(getattr(c, "shape", ()), origin="constant") for c in closed.consts]
    walk.run(closed.jaxpr, consts, ids, "")
    sample = jax.tree_util.tree_leaves(arguments[len(weights) + len(frozen) :])
    return Trace(
        framework=framework,
        name=name,
        sample=", ".join(f"{list(leaf.shape)} {leaf.dtype}" for leaf in sample),
        max_seq_len=None,
        steps=tuple(walk.steps),
        values=tuple(walk.values),
    )


def _shape_of(leaf: Any) -> Any:
    import jax

    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


class _Walk:
    """Goes through a jaxpr in order, with the place in `values` of each of its variables."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.values: list[Value] = []
        self._parameter: dict[int, int] = {}

    def new(self, shape: Any, *, origin: Any = "step", name: str = "") -> int:
        sides = tuple(int(side) for side in shape)
        self.values.append(Value(shape=sides, origin=origin, name=name))
        if origin == "parameter":
            self._parameter[len(self.values) - 1] = len(self.values) - 1
        return len(self.values) - 1

    def run(self, jaxpr: Any, consts: Sequence[int], ids: Sequence[int], scope: str) -> list[int]:
        known: dict[Any, int] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, ids, strict=True))
        for eqn in jaxpr.eqns:
            reads = [self._read(var, known) for var in eqn.invars]
            for var, value in zip(eqn.outvars, self._step(eqn, reads, scope), strict=True):
                known[var] = value
        return [self._read(var, known) for var in jaxpr.outvars]

    def _read(self, var: Any, known: Mapping[Any, int]) -> int:
        if hasattr(var, "val"):
            return self.new(getattr(var.aval, "shape", ()), origin="constant")
        return known[var]

    def _step(self, eqn: Any, reads: list[int], scope: str) -> list[int]:
        word = eqn.primitive.name
        place = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
        if word == "scan":
            return self._scan(eqn, reads, place)
        inner = _inner(eqn)
        if inner is not None:
            operands = reads[1:] if word == "cond" else reads[len(reads) - len(inner[0].invars) :]
            consts = [self.new(getattr(c, "shape", ()), origin="constant") for c in inner[1]]
            return self.run(inner[0], consts, operands, place)
        writes = [self.new(getattr(var.aval, "shape", ())) for var in eqn.outvars]
        form = "view" if word in VIEWS else FORM_OF.get(word, word)
        if word == "max" and any(hasattr(var, "val") for var in eqn.invars):
            form = "relu"
        if form == "view":
            root = self._parameter.get(reads[0])
            if root is not None and word not in ("slice", "squeeze", "split"):
                self._parameter.update(dict.fromkeys(writes, root))
            reads = reads[:1]
        self.steps.append(
            Step(
                form=form,
                name=f"{place}/{word}" if place else word,
                source=word,
                reads=tuple(reads),
                writes=tuple(writes),
                product=_product(eqn),
            )
        )
        return writes

    def _scan(self, eqn: Any, reads: list[int], scope: str) -> list[int]:
        """Turn by turn; a stacked parameter is as many as there are turns."""
        body, turns = eqn.params["jaxpr"], int(eqn.params["length"])
        num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
        fixed, carry = reads[:num_consts], reads[num_consts : num_consts + num_carry]
        stacked = reads[num_consts + num_carry :]
        consts = [self.new(getattr(c, "shape", ()), origin="constant") for c in body.consts]
        results: list[list[int]] = []
        order = range(turns - 1, -1, -1) if eqn.params["reverse"] else range(turns)
        for turn in order:
            slices = [self._slice(value, turn) for value in stacked]
            out = self.run(body.jaxpr, consts, [*fixed, *carry, *slices], scope)
            carry = out[:num_carry]
            results.append(out[num_carry:])
        for value in stacked:
            root = self._parameter.get(value)
            if root is not None and self.values[root].origin == "parameter":
                self.values[root] = replace(self.values[root], origin="constant")
        joined = []
        for place, var in enumerate(eqn.outvars[num_carry:]):
            value = self.new(var.aval.shape)
            parts = tuple(out[place] for out in results)
            self.steps.append(
                Step(
                    form="copy", name=f"{scope}/stack", source="scan", reads=parts, writes=(value,)
                )
            )
            joined.append(value)
        return [*carry, *joined]

    def _slice(self, value: int, turn: int) -> int:
        shape = self.values[value].shape[1:]
        root = self._parameter.get(value)
        if root is not None:
            return self.new(shape, origin="parameter", name=f"{self.values[root].name}[{turn}]")
        part = self.new(shape)
        self.steps.append(
            Step(form="copy", name="slice", source="scan", reads=(value,), writes=(part,))
        )
        return part


def _inner(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """The jaxpr inside a call, with its constants; of a choice the longest branch."""
    if eqn.primitive.name == "cond":
        closed = max(eqn.params["branches"], key=lambda branch: len(branch.jaxpr.eqns))
        return closed.jaxpr, closed.consts
    if eqn.primitive.name not in CALLS:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        if inner is not None:
            return (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
    return None


def _product(eqn: Any) -> Product | None:
    if eqn.primitive.name == "dot_general":
        (one, two), (batch_one, _) = eqn.params["dimension_numbers"]
        left, right = (var.aval.shape for var in eqn.invars[:2])
        batch = math.prod(left[axis] for axis in batch_one)
        k = math.prod(left[axis] for axis in one)
        m = math.prod(left) // max(1, batch * k)
        n = math.prod(right) // max(1, batch * math.prod(right[axis] for axis in two))
        return Product(batch=batch, m=m, n=n, k=k)
    if eqn.primitive.name == "conv_general_dilated":
        return _convolution(eqn)
    return None


def _convolution(eqn: Any) -> Product:
    """m pixels of the result, k channels read x area, `batch` groups. Where the input is spread
    out (a transposed convolution) only its own pixels count."""
    spec, groups = eqn.params["dimension_numbers"], int(eqn.params["feature_group_count"])
    picture, weight = (var.aval.shape for var in eqn.invars[:2])
    result = eqn.outvars[0].aval.shape
    area = math.prod(weight[axis] for axis in spec.rhs_spec[2:])
    outputs, inputs = weight[spec.rhs_spec[0]], weight[spec.rhs_spec[1]]
    pixels = math.prod(result[axis] for axis in spec.out_spec[2:]) * result[spec.out_spec[0]]
    if any(step > 1 for step in eqn.params["lhs_dilation"]):
        pixels = math.prod(picture[axis] for axis in spec.lhs_spec[2:])
        pixels *= picture[spec.lhs_spec[0]]
        return Product(batch=groups, m=pixels, n=outputs // groups * area, k=inputs)
    return Product(batch=groups, m=pixels, n=outputs // groups, k=inputs * area)
