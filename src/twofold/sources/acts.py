"""A trace read: which steps cost something for each sample, which weights they use, what is kept.

The rules are of dataflow alone, so that one network written in three frameworks reads the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from twofold.model.table import Kind
from twofold.sources.trace import FORMS, Product, Step, Trace, words

_KEPT_RESULT = ("relu", "softmax", "exp")
_KEPT_INPUT = ("gelu", "silu", "unary", "square", "layernorm", "rmsnorm", "batchnorm", "loss")
_BETWEEN = words("add multiply select softmax exp copy reduce dropout gelu unary compare")
_SOFTMAX = ("softmax", "exp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A step with its price. Sizes are for one sample; `parameters` those it is first to use,
    `shared` those it uses again, `saved` the elements that backward keeps because of it;
    `turned` says that it multiplies by sines or cosines of positions, `masked` that it reads a
    mask made of positions."""

    kind: Kind
    form: str
    name: str
    source: str
    product: Product
    causal: bool = False
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    parameters: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    saved: int = 0
    turned: bool = False
    masked: bool = False

    @property
    def recognised(self) -> bool:
        return self.form in FORMS

    @property
    def weighted(self) -> bool:
        return self.kind == "gemm" and bool(self.parameters or self.shared)


@dataclass(slots=True)
class _Facts:
    """What is known of each value while steps are read in order: whether it depends on the input
    (`live`), of which weights alone it is made, whether it came through any (`activations`), and
    whether it derives from positions: counted, masks by them, sines of them."""

    live: set[int] = field(default_factory=set)
    weights: dict[int, tuple[int, ...]] = field(default_factory=dict)
    masks: set[int] = field(default_factory=set)
    counts: set[int] = field(default_factory=set)
    activations: set[int] = field(default_factory=set)
    sines: set[int] = field(default_factory=set)
    root: dict[int, int] = field(default_factory=dict)

    def of(self, value: int) -> int:
        return self.root.get(value, value)


def read_acts(trace: Trace) -> tuple[Act, ...]:
    """The steps that depend on the input, attention put together, with what each keeps."""
    facts = _Facts(live={i for i, v in enumerate(trace.values) if v.origin == "input"})
    for index, value in enumerate(trace.values):
        if value.origin == "parameter":
            facts.weights[index] = (index,)
    acts: list[Act] = []
    used: set[int] = set()
    for step in trace.steps:
        act = _read(trace, step, facts, used)
        if act is not None:
            acts.append(act)
    return _with_kept(trace, _with_attention(acts))


def _read(trace: Trace, step: Step, facts: _Facts, used: set[int]) -> Act | None:
    if step.form in ("constant", "iota"):  # what they read are shapes
        step = replace(step, reads=())
    reads = tuple(facts.of(value) for value in step.reads)
    live = any(value in facts.live for value in reads)
    if step.form == "view" and len(step.reads) == 1:
        for value in step.writes:
            facts.root[value] = reads[0]
        return None
    _note(step, reads, facts, live=live)
    if not live:
        return None
    weights = _distinct(
        w for read in reads if read not in facts.live for w in facts.weights.get(read, ())
    )
    first = tuple(w for w in weights if w not in used)
    used.update(first)
    kind: Kind = "vector"
    if step.form == "attention":
        kind = "attention"
    elif step.product is not None:
        kind = "gemm"
    form = step.form
    if form == "embedding" and not weights:
        form = "copy"
    if kind != "vector" or weights:
        facts.activations.update(step.writes)
    return Act(
        kind=kind,
        form=form,
        name=step.name,
        source=step.source,
        product=_product(step, reads, facts) or _rows_of(trace, step, reads),
        causal=step.causal or (kind == "attention" and bool(facts.masks & set(reads))),
        masked=bool(facts.masks & set(reads)),
        reads=tuple(dict.fromkeys(r for r in reads if r in facts.live)),
        writes=step.writes,
        parameters=first,
        shared=tuple(w for w in weights if w not in first),
        turned=step.form == "multiply" and any(value in facts.sines for value in reads),
    )


def _note(step: Step, reads: tuple[int, ...], facts: _Facts, *, live: bool) -> None:
    """Carry what is known of the values read over to those written."""
    counted = step.form in ("iota", "count") or any(value in facts.counts for value in reads)
    masks = any(value in facts.masks for value in reads)
    masks = masks or step.form == "triangle" or (step.form == "compare" and counted)
    masks = masks and step.product is None and not any(v in facts.activations for v in reads)
    sines = step.form == "sine" or any(value in facts.sines for value in reads)
    active = any(value in facts.activations for value in reads)
    weights = _distinct(w for read in reads for w in facts.weights.get(read, ()))
    for value in step.writes:
        if masks:
            facts.masks.add(value)
        if live:
            facts.live.add(value)
            if active:
                facts.activations.add(value)
            continue
        if counted:
            facts.counts.add(value)
        if sines:
            facts.sines.add(value)
        if weights:
            facts.weights[value] = weights


def _product(step: Step, reads: tuple[int, ...], facts: _Facts) -> Product | None:
    """The step's product with what depends on the input on the left."""
    product = step.product
    if product is None or len(reads) < 2 or step.form == "attention":
        return product
    if reads[0] in facts.live or reads[1] not in facts.live:
        return product
    return replace(product, m=product.n, n=product.m)


def _rows_of(trace: Trace, step: Step, reads: tuple[int, ...]) -> Product:
    """Rows and channels of a vector operation: of its result, or of what it reduces."""
    reduces = step.form in ("reduce", "count", "pool", "loss")
    candidates = reads if reduces else step.writes
    shapes = [trace.values[value].shape for value in candidates]
    shape = max(shapes, key=lambda s: _size(s), default=(1,)) or (1,)
    width = max(1, shape[-1])
    return Product(m=max(1, _size(shape) // width), n=width, k=1)


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _distinct(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))


def _with_attention(acts: list[Act]) -> list[Act]:
    """Two products without weights and a softmax between them are one attention; what stands
    between them is part of it. It is causal where a triangle or a comparison masks the scores."""
    scores: dict[int, int] = {}
    passed: dict[int, bool] = {}
    members: dict[int, list[int]] = {}
    gone: set[int] = set()
    put: dict[int, Act] = {}
    for index, act in enumerate(acts):
        origins = [(scores[read], read) for read in act.reads if read in scores]
        bare = act.kind == "gemm" and not act.weighted
        if bare and origins and passed[origins[0][1]]:
            first = origins[0][0]
            put[index] = _attention(acts, first, members[first], act)
            gone.update((first, *members[first]))
        elif bare:
            members[index] = []
            for value in act.writes:
                scores[value], passed[value] = index, False
        elif origins and act.kind == "vector" and act.form in _BETWEEN:
            first, through = origins[0]
            members[first].append(index)
            for value in act.writes:
                scores[value] = first
                passed[value] = passed[through] or act.form in _SOFTMAX
    return [put.get(i, act) for i, act in enumerate(acts) if i in put or i not in gone]


def _attention(acts: list[Act], first: int, between: list[int], second: Act) -> Act:
    """One attention of two products: queries x keys, then scores x values, whichever operand of
    them stands on the left."""
    one, two = acts[first].product, second.product
    keys = two.k
    queries = one.m * one.n // keys
    depth = two.m * two.n // queries
    inside = {w for i in (first, *between) for w in acts[i].writes}
    parts = [acts[first], *(acts[i] for i in between), second]
    return replace(
        second,
        kind="attention",
        form="attention",
        product=Product(batch=one.batch, m=queries, n=keys, k=(one.k + depth) // 2),
        causal=any(acts[i].masked for i in between),
        reads=_distinct(r for part in parts for r in part.reads if r not in inside),
        parameters=tuple(p for part in parts for p in part.parameters),
        shared=tuple(p for part in parts for p in part.shared),
    )


def _with_kept(trace: Trace, acts: list[Act]) -> tuple[Act, ...]:
    """What backward needs: inputs of products and norms, results of ReLU and softmax, both
    factors of a multiplication; each tensor once."""
    kept: set[int] = set()
    result = []
    for act in acts:
        wanted: tuple[int, ...] = ()
        if act.kind == "attention":
            wanted = (*act.reads, *act.writes[:1])
        elif act.kind == "gemm" or act.form in _KEPT_INPUT:
            wanted = act.reads
        elif act.form in _KEPT_RESULT:
            wanted = act.writes[:1]
        elif act.form == "multiply":
            wanted = act.reads if len(act.reads) > 1 or act.parameters or act.shared else ()
        elif act.form == "pool":
            wanted = act.reads
        fresh = [value for value in wanted if value not in kept]
        kept.update(fresh)
        result.append(replace(act, saved=sum(trace.values[v].elements for v in fresh)))
    return tuple(result)
