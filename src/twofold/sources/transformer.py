"""A transformer recognised in a trace: its hyper-parameters, read from what its products are.

A reading is a guess that is then checked: the model it gives must have exactly the parameters of
the trace and its FLOP, else the network stays a chain of operators and the reason is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twofold.errors import InputError
from twofold.model import Model, forward_flop, num_parameters, operator_table
from twofold.model.architecture import Activation, NormPlace, Position
from twofold.sources.acts import Act
from twofold.sources.trace import Trace

_FLOP_TOLERANCE = 0.002
_MOST_TYPES = 16


class NotOne(Exception):
    """Why a network is not one of the transformers that `Model` describes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Where the weighted products of a decoder or encoder stand: before attention, after it, in
    the feed-forward network, behind the last layer. Places in the list of acts."""

    table: int
    attends: tuple[int, ...]
    before: tuple[int, ...]
    output: int
    ups: tuple[int, ...]
    down: int
    tail: tuple[int, ...]


def transformer_from_acts(trace: Trace, acts: Sequence[Act], *, name: str) -> Model:
    """The transformer that the acts are. `NotOne` with the reason where they are none."""
    parts = _parts(acts)
    try:
        model = _model(trace, acts, parts, name)
    except InputError as error:
        raise NotOne(error.what) from error
    _check(trace, acts, model)
    return model


def _parts(acts: Sequence[Act]) -> _Parts:
    attends = tuple(i for i, act in enumerate(acts) if act.kind == "attention")
    tables = [i for i, act in enumerate(acts) if act.form == "embedding" and act.parameters]
    if not attends:
        raise NotOne("it has no attention")
    if not tables or tables[0] > attends[0]:
        raise NotOne("no table of tokens stands before its first attention")
    products = [i for i, act in enumerate(acts) if act.weighted]
    before = tuple(i for i in products if i < attends[0])
    ends = (*attends[1:], len(acts))
    spans = [
        tuple(i for i in products if start < i < end)
        for start, end in zip(attends, ends, strict=True)
    ]
    lead = [_shape(acts[i]) for i in before]
    middle = [_shape(acts[i]) for i in spans[0]]
    if len(attends) > 1:
        if any([_shape(acts[i]) for i in span] != middle for span in spans[:-1]):
            raise NotOne("its layers are not all alike")
        if middle[-len(lead) :] != lead:
            raise NotOne("its first layer differs from the others")
        body = middle[: -len(lead)]
    else:
        body = middle[:-1]
    if not before or len(body) < 2:
        raise NotOne("a layer of it is not attention and a feed-forward network")
    last = [_shape(acts[i]) for i in spans[-1]]
    if last[: len(body)] != body or len(last) == len(body):
        raise NotOne("no head stands behind its last layer")
    own = spans[-1][: len(body)]
    return _Parts(
        table=tables[0],
        attends=attends,
        before=before,
        output=own[0],
        ups=own[1:-1],
        down=own[-1],
        tail=spans[-1][len(body) :],
    )


def _shape(act: Act) -> tuple[int, int]:
    return act.product.n, act.product.k


def _model(trace: Trace, acts: Sequence[Act], parts: _Parts, name: str) -> Model:
    table = acts[parts.table].parameters[0]
    vocab, hidden = trace.values[table].shape[0], trace.values[table].shape[-1]
    output, down, head = acts[parts.output], acts[parts.down], acts[parts.tail[-1]]
    if output.product.n != hidden or _shape(head) != (vocab, hidden):
        raise NotOne("its head is not over the tokens of its table")
    channels = acts[parts.attends[0]].product.k
    heads, odd = divmod(output.product.k, channels)
    queries = output.product.k
    kv_heads, odd_kv = divmod(sum(acts[i].product.n for i in parts.before) - queries, 2 * channels)
    if odd or odd_kv or kv_heads < 1:
        raise NotOne("its queries, keys and values are not of one width")
    ffn = down.product.k
    wide = sum(acts[i].product.n for i in parts.ups)
    if wide not in (ffn, 2 * ffn):
        raise NotOne("its feed-forward network neither widens once nor has a gate")
    biases = {i: _bias(trace, acts, i) for i in (*parts.before, parts.output, *parts.ups)}
    biases[parts.down] = _bias(trace, acts, parts.down)
    masked_head = len(parts.tail) == 2 and _shape(acts[parts.tail[0]]) == (hidden, hidden)
    if len(parts.tail) > 1 and not masked_head:
        raise NotOne("more than a head stands behind its last layer")
    tables = _tables(trace, acts, parts, hidden)
    norms = _norms(trace, acts, parts, hidden, biases)
    qkv, out, mlp = (
        any(biases[i] for i in parts.before),
        bool(biases[parts.output]),
        bool(biases[parts.down]),
    )
    bias = norms.bias
    return Model(
        name=name,
        layers=len(parts.attends),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=None if channels * heads == hidden else channels,
        ffn=ffn,
        vocab=vocab,
        max_seq_len=tables.positions or trace.max_seq_len or acts[parts.before[0]].product.m,
        norm="layernorm" if norms.centred else "rmsnorm",
        norm_place=norms.place,
        embedding_norm=norms.embedding,
        activation=_activation(acts, parts, gated=wide == 2 * ffn),
        position=_position(acts, tables),
        token_types=tables.types,
        qk_norm=norms.heads,
        qk_norm_weights=norms.heads,
        bias=bias,
        qkv_bias=None if qkv == bias else qkv,
        output_bias=None if out == bias else out,
        mlp_bias=None if mlp == bias else mlp,
        tied_embeddings=table in (*head.parameters, *head.shared),
        causal=acts[parts.attends[0]].causal,
        masked_head=masked_head,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    positions: int | None
    types: int


def _tables(trace: Trace, acts: Sequence[Act], parts: _Parts, hidden: int) -> _Tables:
    """Tables of positions and token types, looked up or added before the first layer."""
    rows = [
        trace.values[p].elements // hidden
        for act in acts[: parts.before[0]]
        for p in act.parameters
        if act.kind == "vector"
        and p != acts[parts.table].parameters[0]
        and trace.values[p].elements >= 2 * hidden
        and trace.values[p].shape[-1] == hidden
    ]
    positions = [count for count in rows if count > _MOST_TYPES]
    return _Tables(
        positions=positions[0] if positions else None,
        types=sum(count for count in rows if count <= _MOST_TYPES),
    )


def _position(acts: Sequence[Act], tables: _Tables) -> Position:
    if tables.positions:
        return "learned"
    return "rotary" if any(act.turned for act in acts) else "none"


def _bias(trace: Trace, acts: Sequence[Act], place: int) -> int | None:
    """The bias of a product: its own, or what is added to its result."""
    act, width = acts[place], acts[place].product.n
    for p in (*act.parameters, *act.shared):
        if trace.values[p].elements == width and _is_vector(trace, p):
            return p
    for later in acts[place + 1 :]:
        if later.form == "add" and set(later.reads) & set(act.writes):
            for p in (*later.parameters, *later.shared):
                if trace.values[p].elements == width:
                    return p
    return None


def _is_vector(trace: Trace, parameter: int) -> bool:
    return max(trace.values[parameter].shape, default=0) == trace.values[parameter].elements


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norms:
    place: NormPlace
    embedding: bool
    centred: bool
    bias: bool
    heads: bool


def _norms(
    trace: Trace,
    acts: Sequence[Act],
    parts: _Parts,
    hidden: int,
    biases: dict[int, int | None],
) -> _Norms:
    """How many weights of norms there are, and whether the first stands on the residual stream."""
    layers = len(parts.attends)
    taken = {_bias(trace, acts, i) for i, act in enumerate(acts) if act.weighted} | set(
        biases.values()
    )
    channels = acts[parts.attends[0]].product.k
    sizes = [
        trace.values[p].elements
        for act in acts
        if act.kind == "vector" and act.form != "embedding"
        for p in act.parameters
        if p not in taken and _is_vector(trace, p)
    ]
    of_hidden = sizes.count(hidden)
    of_heads = sizes.count(channels) if channels != hidden else 0
    first = set(acts[parts.before[0]].reads)
    after = any(act.form == "add" and first & set(act.reads) for act in acts[parts.before[0] :])
    centred = any(act.form == "layernorm" for act in acts) or of_hidden > 4 * layers + 1
    extra = 1 if len(parts.tail) == 2 else 0
    for bias in (False, True):
        count, odd = divmod(of_hidden, 2 if bias else 1)
        count -= extra
        if odd:
            continue
        if after and count in (2 * layers, 2 * layers + 1):
            embedding = count == 2 * layers + 1
            return _Norms(
                place="after", embedding=embedding, centred=True, bias=bias, heads=of_heads > 0
            )
        if not after and count in (2 * layers + 1, 4 * layers + 1):
            place: NormPlace = "before" if count == 2 * layers + 1 else "around"
            return _Norms(
                place=place,
                embedding=False,
                centred=centred or bias,
                bias=bias,
                heads=of_heads > 0,
            )
    raise NotOne(f"{of_hidden} weights of norms do not fit its {layers} layers")


def _activation(acts: Sequence[Act], parts: _Parts, *, gated: bool) -> Activation:
    """What stands between the widening product and the narrowing one."""
    forms = {act.form for act in acts[parts.ups[0] + 1 : parts.down]} if parts.ups else set()
    if gated:
        return "swiglu" if "silu" in forms else "geglu"
    if "silu" in forms:
        raise NotOne("its feed-forward network has SiLU without a gate")
    if "relu" in forms:
        return "relu2" if forms & {"square", "multiply"} else "relu"
    return "gelu"


def trace_flop(acts: Sequence[Act]) -> float:
    """Model FLOP of the trace forward, causal attention counted as causal."""
    total = 0.0
    for act in acts:
        product = act.product
        size = float(product.batch) * product.m * product.n * product.k
        if act.kind == "gemm":
            total += 2.0 * size
        elif act.kind == "attention":
            total += 4.0 * size * (0.5 if act.causal else 1.0)
    return total


def _check(trace: Trace, acts: Sequence[Act], model: Model) -> None:
    """Exactly the parameters, and the FLOP of the trace."""
    seen = sum(trace.values[p].elements for act in acts for p in act.parameters)
    counted = num_parameters(model)
    if seen != counted:
        raise NotOne(
            f"read as a transformer it would have {counted:,} parameters, but it has {seen:,}"
        )
    first = next(act for act in acts if act.form == "embedding" and act.parameters)
    seq = trace.values[first.writes[0]].elements // model.hidden
    flop = trace_flop(acts)
    priced = sum(row.repeat * forward_flop(row, seq, seq) for row in operator_table(model))
    if abs(priced / flop - 1.0) > _FLOP_TOLERANCE:
        raise NotOne(
            f"read as a transformer it would take {priced:.4g} FLOP at {seq} tokens, "
            f"but it takes {flop:.4g}"
        )
