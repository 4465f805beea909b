"""A TensorFlow SavedModel: the graph of its serving signature, calls inlined, not run.

`tf:FOLDER` loads the graph and its variables; a SavedModel is a programme, but loading executes
none of it beyond restoring variables.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twofold.errors import EnvironmentLack, InputError
from twofold.sources.tensorflow_forms import FORM_OF, IGNORED, LOOPS, VIEWS
from twofold.sources.trace import Product, Step, Trace, Value

SEQ_LEN = 128
"""A side of the input that the signature leaves open."""


def trace_saved_model(target: str, *, at: str) -> tuple[Trace, tuple[str, ...]]:
    """The trace of the signature `serving_default`, or of the only one."""
    folder = Path(target).expanduser()
    if not (folder / "saved_model.pb").is_file():
        raise InputError(
            f"there is no SavedModel in '{target}'",
            at=at,
            help="name the folder that holds saved_model.pb",
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise EnvironmentLack(
            "TensorFlow is not installed", at=at, help="install twofold[tensorflow]"
        ) from error
    loaded = tf.saved_model.load(str(folder))
    signature = _signature(loaded, at)
    assumed: list[str] = []
    inputs = {
        name: _spec(tf, name, tensor, assumed)
        for name, tensor in signature.structured_input_signature[1].items()
    }
    concrete = tf.function(lambda **given: signature(**given)).get_concrete_function(**inputs)
    graph, parameters, states = _flat_graph(concrete, signature)
    walk = _Walk(at)
    walk.run(graph, parameters, states)
    trace = Trace(
        framework="TensorFlow",
        name=folder.name,
        sample=", ".join(f"{list(s.shape)} {s.dtype.name}" for s in inputs.values()),
        max_seq_len=None,
        steps=tuple(walk.steps),
        values=tuple(walk.values),
    )
    return trace, tuple(assumed)


def _signature(loaded: Any, at: str) -> Any:
    names = list(loaded.signatures)
    if not names:
        raise InputError(
            "the SavedModel has no signature", at=at, help="save it with model.export(folder)"
        )
    return loaded.signatures["serving_default" if "serving_default" in names else names[0]]


def _spec(tf: Any, name: str, tensor: Any, assumed: list[str]) -> Any:
    if tensor.shape.rank is None:
        raise InputError(
            f"the input '{name}' has no rank", at=name, help="save the model with its input's shape"
        )
    sides = list(tensor.shape)
    if any(side is None for side in sides[1:]):
        assumed.append(f"the open side of input '{name}' is {SEQ_LEN}")
    shape = [SEQ_LEN if side is None else side for side in sides]
    shape[:1] = [1] if shape else []
    return tf.TensorSpec(shape, tensor.dtype, name=name)


def _flat_graph(concrete: Any, signature: Any) -> tuple[Any, dict[str, Any], set[str]]:
    """The graph with its calls inlined and variables as placeholders of their shapes, so that
    TensorFlow infers all sizes; the names of trainable variables, and of states."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization

    held = {v.handle._id: v for v in signature.variables}
    variables = {
        inner.name.partition(":")[0]: held[outer._id]
        for outer, inner in concrete.graph.captures
        if outer.dtype == tf.resource and outer._id in held
    }
    definition = _run_inline_graph_optimization(concrete, False, True)
    _pass_types_on(definition, variables)
    for node in list(definition.node):
        node.attr.pop("_output_shapes", None)
        if node.name in variables:
            node.attr["dtype"].type = variables[node.name].dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(variables[node.name].shape.as_proto())
        elif node.op == "ReadVariableOp":
            node.op = "Identity"
            node.attr["T"].CopyFrom(node.attr.pop("dtype"))
        elif node.op == "ResourceGather":
            _gather(node, definition)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    trained = {name: v for name, v in variables.items() if v.trainable}
    return graph, trained, set(variables) - set(trained)


def _pass_types_on(definition: Any, variables: Mapping[str, Any]) -> None:
    """Handles handed on by name become what they are handles of."""
    import tensorflow as tf

    handed = dict(variables)
    resource = tf.resource.as_datatype_enum
    links = [n for n in definition.node if n.op == "Identity" and n.attr["T"].type == resource]
    while links:
        rest = [node for node in links if node.input[0].partition(":")[0] not in handed]
        if len(rest) == len(links):
            return
        for node in links:
            variable = handed.get(node.input[0].partition(":")[0])
            if variable is not None:
                handed[node.name] = variable
                node.attr["T"].type = variable.dtype.as_datatype_enum
        links = rest


def _gather(node: Any, definition: Any) -> None:
    """A look-up in a variable as one in a tensor."""
    import tensorflow as tf

    axis = definition.node.add()
    axis.name, axis.op = f"{node.name}/twofold_axis", "Const"
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0))
    node.op = "GatherV2"
    node.input.insert(2, axis.name)
    node.attr["Tparams"].CopyFrom(node.attr.pop("dtype"))
    node.attr["Taxis"].type = tf.int32.as_datatype_enum
    node.attr.pop("validate_indices", None)


class _Walk:
    """Goes through a graph in order; a tensor's place in `values` by its name."""

    def __init__(self, at: str) -> None:
        self.steps: list[Step] = []
        self.values: list[Value] = []
        self._at = at

    def run(self, graph: Any, parameters: Mapping[str, Any], states: set[str]) -> None:
        known: dict[str, int] = {}
        for op in graph.get_operations():
            if op.type in IGNORED:
                continue
            if op.type == "Placeholder":
                origin = "parameter" if op.name in parameters else "input"
                origin = "constant" if op.name in states else origin
                name = parameters[op.name].name if op.name in parameters else op.name
                known[op.outputs[0].name] = self._new(op.outputs[0], origin, name)
                continue
            reads = [known[tensor.name] for tensor in op.inputs]
            for tensor, value in zip(op.outputs, self._step(op, reads), strict=True):
                known[tensor.name] = value

    def _new(self, tensor: Any, origin: Any, name: str = "") -> int:
        sides = tuple(
            1 if side is None else int(side) for side in (tensor.shape if tensor.shape.rank else ())
        )
        self.values.append(Value(shape=sides, origin=origin, name=name))
        return len(self.values) - 1

    def _step(self, op: Any, reads: list[int]) -> list[int]:
        if op.type in LOOPS:
            raise InputError(
                f"the graph has a loop, '{op.name}', whose length is not known",
                at=self._at,
                help="import the model by keras:FILE or jax:, where loops are unrolled",
            )
        if op.type == "Identity":
            return reads
        writes = [self._new(tensor, "step") for tensor in op.outputs]
        form = "view" if op.type in VIEWS else FORM_OF.get(op.type, op.type)
        product = _product(op)
        self.steps.append(
            Step(
                form=form,
                name=op.name,
                source=op.type,
                reads=tuple(reads[:1] if form == "view" else reads),
                writes=tuple(writes),
                product=product,
            )
        )
        if product is not None and min(product.m, product.n, product.k) < 1:
            raise InputError(
                f"the sizes of '{op.name}' ({op.type}) are not known",
                at=self._at,
                help="save the model with fixed sides but for the batch",
            )
        return writes


def _product(op: Any) -> Product | None:
    shapes = [_sides(tensor) for tensor in op.inputs]
    if op.type == "MatMul":
        one, two = shapes
        m, k = one[::-1] if op.get_attr("transpose_a") else one
        n = two[0] if op.get_attr("transpose_b") else two[1]
        return Product(m=m, n=n, k=k)
    if op.type in ("BatchMatMulV2", "BatchMatMulV3", "BatchMatMul"):
        one, two = shapes
        m, k = one[-1:-3:-1] if op.get_attr("adj_x") else one[-2:]
        n = two[-2] if op.get_attr("adj_y") else two[-1]
        return Product(batch=math.prod(one[:-2]), m=m, n=n, k=k)
    if op.type == "Einsum":
        return _einsum(op.get_attr("equation").decode(), shapes)
    if op.type in ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3D"):
        return _convolution(op, shapes)
    return None


def _sides(tensor: Any) -> tuple[int, ...]:
    """Sides of a tensor; 0 where one is not known."""
    if tensor.shape.rank is None:
        return (0, 0)
    return tuple(0 if side is None else int(side) for side in tensor.shape)


def _einsum(equation: str, shapes: Sequence[Sequence[int]]) -> Product | None:
    if len(shapes) != 2 or "." in equation:
        return None
    left, result = equation.split("->")
    one, two = left.split(",")
    size: Mapping[str, int] = dict(zip(one + two, (*shapes[0], *shapes[1]), strict=True))
    groups = {
        "batch": [c for c in one if c in two and c in result],
        "k": [c for c in one if c in two and c not in result],
        "m": [c for c in one if c not in two],
        "n": [c for c in two if c not in one],
    }
    return Product(**{name: math.prod(size[c] for c in found) for name, found in groups.items()})


def _convolution(op: Any, shapes: Sequence[Sequence[int]]) -> Product:
    """As elsewhere: m pixels, n channels written, k channels read x area, `batch` groups."""
    result, last = _sides(op.outputs[0]), op.get_attr("data_format").endswith(b"C")
    inner = slice(1, -1) if last else slice(2, None)
    pixels = result[0] * math.prod(result[inner])
    weight = shapes[1]
    area = math.prod(weight[:-2])
    if op.type == "DepthwiseConv2dNative":
        return Product(batch=weight[-2], m=pixels, n=weight[-1], k=area)
    if op.type == "Conv2DBackpropInput":
        picture = shapes[2]
        own = picture[0] * math.prod(picture[inner])
        return Product(m=own, n=weight[-2] * area, k=weight[-1])
    channels = shapes[0][-1] if last else shapes[0][1]
    groups = max(1, channels // weight[-2])
    return Product(batch=groups, m=pixels, n=weight[-1] // groups, k=weight[-2] * area)
