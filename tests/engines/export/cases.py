"""Plans to be handed over, drawn or stated."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from twofold.engines.export.effective import effective_plan
from twofold.engines.export.form import Case
from twofold.engines.export.registry import ENGINES
from twofold.model import Model
from twofold.plan import Plan, Stage
from twofold.sources.models import find_model
from twofold.workload import Recipe, Train

GPT2 = Model(
    name="gpt2-tiny", layers=4, hidden=128, heads=4, kv_heads=4, ffn=512, vocab=256,
    max_seq_len=256,
)  # fmt: skip
LLAMA = Model(
    name="llama-tiny", layers=4, hidden=128, heads=8, kv_heads=4, ffn=352, vocab=256,
    max_seq_len=256, norm="rmsnorm", activation="swiglu", position="rotary", bias=False,
    tied_embeddings=False,
)  # fmt: skip
MODELS = (GPT2, LLAMA, *map(find_model, ("llama-3.1-8b", "mixtral-8x7b", "qwen3-30b-a3b")))


def workload(**changes: Any) -> Train:
    recipe = {"learning_rate": 3e-4, "global_batch": 64} | changes.pop("recipe", {})
    return Train(tokens=10**7, seq_len=128, recipe=Recipe(**recipe), **changes)


def case(plan: Plan, model: Model = LLAMA, **changes: Any) -> Case:
    work = changes.pop("workload", workload())
    return Case(plan=effective_plan(plan, model, work), model=model, workload=work, **changes)


@st.composite
def drawn_cases(draw: st.DrawFn) -> Case:
    """Of any engine: most are refused by some, and each has some it takes."""
    model = draw(st.sampled_from(MODELS))
    powers = st.sampled_from((1, 1, 2, 4))
    data, pipeline = draw(st.sampled_from((1, 2, 4, 8))), draw(powers)
    zero = draw(st.sampled_from((0, 0, 1, 2, 3)))
    shards = draw(st.sampled_from([0, *(d for d in (2, 4) if data % d == 0)]))
    virtual = draw(st.sampled_from((1, 2))) if pipeline > 1 else 1
    cuts = None
    if pipeline > 1 and virtual == 1 and draw(st.booleans()):
        cuts = draw(_cuts(model.layers, pipeline))
    stages = tuple(Stage(pool="h100", layers=n) for n in cuts or ())
    recompute = draw(st.sampled_from(("none", "selective", "full", "full")))
    plan = Plan(
        pool="h100",
        data_degree=data,
        tensor_degree=draw(powers),
        pipeline_degree=pipeline,
        context_degree=draw(st.sampled_from((1, 1, 2))),
        expert_degree=draw(st.sampled_from((1, 1, 2))),
        expert_tensor_degree=draw(st.sampled_from((1, 1, 1, 2))),
        sequence_parallel=draw(st.booleans()),
        zero_stage=zero,
        shard_degree=shards,
        schedule="interleaved" if virtual > 1 else draw(st.sampled_from(("1f1b", "gpipe"))),
        virtual_stages=virtual,
        stages=stages,
        recompute=recompute,
        recompute_layers=draw(st.sampled_from((None, None, 1))) if recompute == "full" else None,
        offload=draw(st.sampled_from(("none", "none", "optimizer"))),
        micro_batch=draw(st.sampled_from((1, 2, 4))),
        precision=draw(st.sampled_from(("fp32", "tf32", "bf16", "bf16", "fp16", "fp8", "mxfp8"))),
        attention=draw(st.sampled_from(("sdpa", "sdpa", "explicit"))),
        compile=draw(st.booleans()),
        threads=draw(st.sampled_from((1, 4))),
        optimizer_kernel=draw(st.sampled_from(("fused", "fused", "foreach", "loop"))),
    )
    device = draw(st.sampled_from(("gpu", "gpu", "tpu", "cpu")))
    recipe = {"schedule": draw(st.sampled_from(("cosine", "linear", "trapezoid")))}
    nodes = draw(st.sampled_from([n for n in (1, 2) if plan.num_ranks % n == 0]))
    return case(
        plan, model, workload=workload(recipe=recipe), device=device, num_nodes=nodes,
        num_slices=draw(st.sampled_from((1, 2))) if device == "tpu" else 1,
    )  # fmt: skip


@st.composite
def accepted_cases(draw: st.DrawFn, engine: str) -> Case:
    """Drawn, and bent until the engine takes it: levers that it refuses go to their defaults."""
    one = draw(drawn_cases())
    for _ in range(12):
        refusal = ENGINES[engine].refusal(one)
        if refusal is None:
            return one
        one = _bent(one, str(refusal.at))
    return one


def _bent(one: Case, at: str) -> Case:
    from dataclasses import replace

    lever = at.removeprefix("plan, ")
    bends: dict[str, dict[str, Any]] = {
        "pipeline_degree": {"pipeline_degree": 1, "virtual_stages": 1, "stages": ()},
        "virtual_stages": {"virtual_stages": 1, "schedule": "1f1b"},
        "zero_stage": {"zero_stage": 0, "shard_degree": 0, "offload": "none"},
        "precision": {"precision": "bf16"},
        "optimizer_kernel": {"optimizer_kernel": "fused"},
        "micro_batch": {"micro_batch": 1},
    }
    if at.startswith("model"):
        return replace(one, model=find_model("llama-3.1-8b"), plan=_whole(one.plan))
    if lever == "pool":
        return replace(one, device="gpu", num_slices=1)
    defaults = {"stages": (), "recompute_layers": None, "shard_degree": 0}
    simple = defaults.get(lever, getattr(Plan(micro_batch=1), lever, None))
    plan = replace(one.plan, **bends.get(lever, {lever: simple}))
    nodes = one.num_nodes if plan.num_ranks % one.num_nodes == 0 else 1
    plan = effective_plan(plan, one.model, one.workload)
    return replace(one, plan=plan, num_nodes=nodes)


def _whole(plan: Plan) -> Plan:
    from dataclasses import replace

    return replace(plan, stages=(), expert_degree=1, expert_tensor_degree=1)


def _cuts(layers: int, stages: int) -> st.SearchStrategy[tuple[int, ...]]:
    places = st.lists(
        st.integers(1, layers - 1), min_size=stages - 1, max_size=stages - 1, unique=True
    )
    return places.map(sorted).map(
        lambda ends: tuple(b - a for a, b in zip([0, *ends], [*ends, layers], strict=True))
    )
