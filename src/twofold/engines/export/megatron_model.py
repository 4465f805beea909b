"""The shape of a model as Megatron-LM's arguments, and which shapes it has not."""

from __future__ import annotations

from twofold.engines.export.form import Case, Lack, Setting
from twofold.model import Model


def _shape(case: Case) -> dict[str, bool]:
    """What Megatron's GPT has no argument for, as the plan's model may have it."""
    model = case.model
    experts = model.experts
    biases = {_bias(model, name) for name in ("output_bias", "mlp_bias")}
    return {
        "value_embeddings": model.value_embeddings > 0,
        "logit_softcap": model.logit_softcap is not None,
        "towers": bool(model.towers),
        "norm_place": model.norm_place != "before",
        "embedding_norm": model.embedding_norm,
        "causal": not model.causal,
        "attention_sinks": model.attention_sinks,
        "qk_norm": model.qk_norm and not model.qk_norm_weights,
        "activation": model.activation not in ("gelu", "relu2", "swiglu"),
        "position": model.position not in ("learned", "rotary", "none"),
        "output_bias": len(biases) > 1,
        "window": model.window is not None,
        "experts": experts is not None and (experts.bias or experts.every > 1),
        "masked_head": model.masked_head or model.pooler or model.token_types > 0,
    }


def _lack(name: str) -> Lack:
    return Lack(
        lever=f"model, {name}",
        refuses=lambda case: _shape(case)[name],
        what=f"the export to {{engine}} has no argument for {name} of '{{model.name}}'",
        help="run the plan with `twofold run`, or write the model for {engine} yourself",
    )


MODEL_LACKS = tuple(
    _lack(name)
    for name in (
        "value_embeddings", "logit_softcap", "towers", "norm_place", "embedding_norm", "causal",
        "attention_sinks", "qk_norm", "activation", "position", "output_bias", "window", "experts",
        "masked_head",
    )
)  # fmt: skip


def model_arguments(model: Model) -> list[Setting]:
    """Of a model that lacks nothing."""
    positions = {"learned": "learned_absolute", "rotary": "rope", "none": "none"}
    norms = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
    arguments = [
        Setting("--num-layers", model.layers, "model, layers"),
        Setting("--hidden-size", model.hidden, "model, hidden"),
        Setting("--num-attention-heads", model.heads, "model, heads"),
        Setting("--ffn-hidden-size", model.ffn, "model, ffn"),
        Setting("--max-position-embeddings", model.max_seq_len, "model, max_seq_len"),
        Setting("--vocab-size", model.vocab, "model, vocab"),
        Setting("--normalization", norms[model.norm], "model, norm"),
        Setting("--position-embedding-type", positions[model.position], "model, position"),
        Setting("--hidden-dropout", 0.0, "the plan's model has none"),
        Setting("--attention-dropout", 0.0, "likewise"),
    ]
    if model.latent is None:
        arguments.append(Setting("--kv-channels", model.head_size, "model, head_dim"))
    if model.kv_heads != model.heads and model.latent is None:
        arguments.append(Setting("--group-query-attention", True, "model, kv_heads"))
        arguments.append(Setting("--num-query-groups", model.kv_heads, "model, kv_heads"))
    if model.activation != "gelu":
        option = {"swiglu": "--swiglu", "relu2": "--squared-relu"}[model.activation]
        arguments.append(Setting(option, True, "model, activation"))
    if not model.tied_embeddings:
        option = "--untie-embeddings-and-output-weights"
        arguments.append(Setting(option, True, "model, tied_embeddings"))
    if not _bias(model, "mlp_bias"):
        arguments.append(Setting("--disable-bias-linear", True, "model, bias"))
        if _bias(model, "qkv_bias"):
            arguments.append(Setting("--add-qkv-bias", True, "model, qkv_bias"))
    if model.qk_norm:
        arguments.append(Setting("--qk-layernorm", True, "model, qk_norm"))
    return arguments + _latent(model) + _experts(model)


def _latent(model: Model) -> list[Setting]:
    latent = model.latent
    if latent is None:
        return []
    arguments = [
        Setting("--multi-latent-attention", True, "model, latent"),
        Setting("--kv-lora-rank", latent.kv_rank, "model, latent.kv_rank"),
        Setting("--qk-head-dim", latent.nope_dim, "model, latent.nope_dim"),
        Setting("--qk-pos-emb-head-dim", latent.rope_dim, "model, latent.rope_dim"),
        Setting("--v-head-dim", latent.value_dim, "model, latent.value_dim"),
    ]
    if latent.query_rank is not None:
        arguments.append(Setting("--q-lora-rank", latent.query_rank, "model, latent.query_rank"))
    return arguments


def _experts(model: Model) -> list[Setting]:
    experts = model.experts
    if experts is None:
        return []
    sparse = model.layers - experts.first_layer
    frequency = f"([0]*{experts.first_layer}+[1]*{sparse})" if experts.first_layer else "1"
    arguments = [
        Setting("--num-experts", experts.count, "model, experts.count"),
        Setting("--moe-router-topk", experts.top_k, "model, experts.top_k"),
        Setting("--moe-ffn-hidden-size", experts.ffn, "model, experts.ffn"),
        Setting("--moe-layer-freq", frequency, "model, experts.first_layer"),
    ]
    if experts.shared_ffn:
        option = "--moe-shared-expert-intermediate-size"
        arguments.append(Setting(option, experts.shared_ffn, "model, experts.shared_ffn"))
    if experts.router_bias:
        option = "--moe-router-enable-expert-bias"
        arguments.append(Setting(option, True, "model, experts.router_bias"))
    return arguments


def _bias(model: Model, name: str) -> bool:
    value = getattr(model, name)
    return model.bias if value is None else bool(value)
