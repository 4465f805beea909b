"""A `Model` from a Hugging Face `config.json`, family by family.

Defaults are those of the family's configuration class in `transformers`, which leaves out of the
file what equals them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from twofold.errors import InputError
from twofold.model import Experts, LatentAttention, Model
from twofold.model.architecture import Activation
from twofold.sources.config import Config
from twofold.sources.vision import vision_tower

_Reader = Callable[[Config], dict[str, Any]]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "relu2": "relu2",
}
_GATES: dict[str, Activation] = {
    "silu": "swiglu",
    "swish": "swiglu",
    "swiglu": "swiglu",
    "gelu": "geglu",
    "gelu_new": "geglu",
    "gelu_pytorch_tanh": "geglu",
}


def model_from_config(config: Mapping[str, Any], *, name: str | None = None) -> Model:
    """The model that a decoded `config.json` describes. InputError for what it does not say."""
    at = "config.json" if name is None else f"config of '{name}'"
    read = Config(config, at=at)
    kind = read.word("model_type")
    reader = _FAMILIES.get(kind)
    if reader is None:
        near = difflib.get_close_matches(kind, _FAMILIES, n=1)
        raise InputError(
            f"the model_type '{kind}' is not supported",
            at=f"{at}, model_type",
            help=(f"the nearest is '{near[0]}'; " if near else "")
            + "supported are "
            + ", ".join(supported_model_types())
            + f"; read were {_read_sizes(config)}: what is missing is how this family puts them "
            "together. Bring its code by torch:module:function, or write the shape as a TOML",
        )
    title = name or read.word("_name_or_path", default="").rpartition("/")[2] or kind
    return Model(name=title, **reader(read))


def _read_sizes(config: Mapping[str, Any]) -> str:
    """The sizes that a config of an unknown family states."""
    sizes = [f"{key} {value}" for key, value in config.items() if type(value) is int]
    return ", ".join(sizes[:12]) or "no sizes"


def supported_model_types() -> list[str]:
    return sorted(_FAMILIES)


def _activation(config: Config, *keys: str, default: str, gated: bool) -> Activation:
    word = config.word(*keys, default=default)
    table = _GATES if gated else _ACTIVATIONS
    if word not in table:
        raise config.unsupported(keys[0], "known are " + ", ".join(table))
    return table[word]


def _modern(config: Config, *, tied: bool = False, max_seq_len: int = 2048) -> dict[str, Any]:
    """What Llama and its relatives have in common."""
    heads = config.count("num_attention_heads")
    return {
        "layers": config.count("num_hidden_layers"),
        "hidden": config.count("hidden_size"),
        "heads": heads,
        "kv_heads": config.count("num_key_value_heads", default=heads),
        "ffn": config.count("intermediate_size"),
        "vocab": config.count("vocab_size"),
        "max_seq_len": config.count("max_position_embeddings", default=max_seq_len),
        "head_dim": config.optional("head_dim"),
        "norm": "rmsnorm",
        "activation": _activation(
            config, "hidden_act", "hidden_activation", default="silu", gated=True
        ),
        "position": "rotary",
        "bias": False,
        "tied_embeddings": config.flag("tie_word_embeddings", tied),
    }


def _llama(config: Config) -> dict[str, Any]:
    """Biases of attention, where there are any, are on its output too."""
    attention_bias = config.flag("attention_bias", False) or None
    return _modern(config) | {
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
        "mlp_bias": config.flag("mlp_bias", False) or None,
    }


def _mistral(config: Config) -> dict[str, Any]:
    return _modern(config, max_seq_len=32768) | {"window": config.optional("sliding_window")}


def _mixtral(config: Config) -> dict[str, Any]:
    experts = Experts(
        count=config.count("num_local_experts"),
        top_k=config.count("num_experts_per_tok"),
        ffn=config.count("intermediate_size"),
    )
    return _mistral(config) | {"experts": experts}


def _qwen2(config: Config) -> dict[str, Any]:
    return _modern(config, max_seq_len=32768) | {"qkv_bias": True} | _qwen_window(config)


def _qwen3(config: Config) -> dict[str, Any]:
    bias = config.flag("attention_bias", False) or None
    fields = {"qkv_bias": bias, "output_bias": bias, "qk_norm": True, "qk_norm_weights": True}
    head_dim = config.optional("head_dim") or 128
    return (
        _modern(config, max_seq_len=32768) | fields | {"head_dim": head_dim} | _qwen_window(config)
    )


def _qwen_window(config: Config) -> dict[str, Any]:
    """Upper layers only, as the config would say; none of the released models switches it on."""
    if config.flag("use_sliding_window", False):
        raise config.unsupported("use_sliding_window", "state window in a TOML of your own")
    return {}


def _qwen3_moe(config: Config) -> dict[str, Any]:
    dense = config.counts("mlp_only_layers")
    if dense != tuple(range(len(dense))):
        raise config.unsupported("mlp_only_layers", "dense layers must lead")
    experts = Experts(
        count=config.count("num_experts", "num_local_experts"),
        top_k=config.count("num_experts_per_tok"),
        ffn=config.count("moe_intermediate_size"),
        first_layer=len(dense),
        every=config.count("decoder_sparse_step", default=1),
    )
    return _qwen3(config) | {"experts": experts}


def _deepseek(config: Config) -> dict[str, Any]:
    """Multi-token prediction, which the config only counts, is left out as in published totals."""
    latent = LatentAttention(
        query_rank=config.optional("q_lora_rank") if "q_lora_rank" in config.mapping else 1536,
        kv_rank=config.count("kv_lora_rank"),
        nope_dim=config.count("qk_nope_head_dim"),
        rope_dim=config.count("qk_rope_head_dim"),
        value_dim=config.count("v_head_dim"),
    )
    fields = _modern(config) | {"latent": latent, "head_dim": None}
    fields["kv_heads"] = fields["heads"]
    if config.flag("attention_bias", False):
        raise config.unsupported("attention_bias", "no released model has it")
    if config.has("n_routed_experts"):
        width = config.count("moe_intermediate_size")
        adjusted = config.word("topk_method", default="") == "noaux_tc" or (
            config.word("model_type") == "deepseek_v3" and not config.has("topk_method")
        )
        fields["experts"] = Experts(
            count=config.count("n_routed_experts"),
            top_k=config.count("num_experts_per_tok"),
            ffn=width,
            shared_ffn=width * config.number("n_shared_experts", 0),
            first_layer=config.number("first_k_dense_replace", 0),
            every=config.count("moe_layer_freq", default=1),
            router_bias=adjusted,
        )
    return fields


def _gpt_oss(config: Config) -> dict[str, Any]:
    experts = Experts(
        count=config.count("num_local_experts", "num_experts"),
        top_k=config.count("num_experts_per_tok", "experts_per_token"),
        ffn=config.count("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    bias = config.flag("attention_bias", True)
    return (
        _modern(config, max_seq_len=131072)
        | {
            "qkv_bias": bias,
            "output_bias": bias,
            "attention_sinks": True,
            "experts": experts,
        }
        | _windows(config, default_every=2)
    )


def _windows(config: Config, *, default_every: int) -> dict[str, Any]:
    """A window, and every so-many-th layer global, from `layer_types` or the family's pattern."""
    window = config.optional("sliding_window")
    kinds = config.words("layer_types")
    every = config.count("sliding_window_pattern", default=default_every)
    if kinds:
        every = kinds.index("full_attention") + 1 if "full_attention" in kinds else 0
        expected = tuple(
            "full_attention" if every and (layer + 1) % every == 0 else "sliding_attention"
            for layer in range(len(kinds))
        )
        if kinds != expected:
            raise config.unsupported("layer_types", "global layers must come at equal distances")
    if window is None or every == 1:
        return {}
    return {"window": window, "global_every": every or None}


def _gemma(config: Config) -> dict[str, Any]:
    """The embedding's scale and attention's soft cap are no parameters and next to no time."""
    gate = _activation(
        config,
        "hidden_activation",
        "hidden_act",
        default="gelu_pytorch_tanh",
        gated=True,
    )
    return _modern(config, tied=True, max_seq_len=8192) | {
        "head_dim": config.count("head_dim", default=256),
        "activation": gate,
    }


def _gemma2(config: Config) -> dict[str, Any]:
    cap = config.ratio("final_logit_softcapping", 0.0) or None
    return (
        _gemma(config)
        | {"norm_place": "around", "logit_softcap": cap}
        | _windows(config, default_every=2)
    )


def _gemma3_text(config: Config) -> dict[str, Any]:
    return (
        _gemma(config)
        | {"norm_place": "around", "qk_norm": True, "qk_norm_weights": True}
        | {"max_seq_len": config.count("max_position_embeddings", default=131072)}
        | _windows(config, default_every=6)
    )


def _gpt2(config: Config) -> dict[str, Any]:
    hidden, heads = config.count("n_embd"), config.count("n_head")
    return {
        "layers": config.count("n_layer"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "ffn": config.count("n_inner", default=4 * hidden),
        "vocab": config.count("vocab_size"),
        "max_seq_len": config.count("n_positions", "n_ctx"),
        "activation": _activation(config, "activation_function", default="gelu_new", gated=False),
        "tied_embeddings": config.flag("tie_word_embeddings", True),
    }


def _opt(config: Config) -> dict[str, Any]:
    """Two rows of the position table, for padding, precede the positions themselves."""
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    if config.count("word_embed_proj_dim", default=hidden) != hidden:
        raise config.unsupported("word_embed_proj_dim", "projected embeddings are not known")
    if not config.flag("do_layer_norm_before", True):
        raise config.unsupported("do_layer_norm_before", "OPT's norms stand before")
    return {
        "layers": config.count("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "ffn": config.count("ffn_dim"),
        "vocab": config.count("vocab_size"),
        "max_seq_len": config.count("max_position_embeddings") + 2,
        "activation": _activation(config, "activation_function", default="relu", gated=False),
        "bias": config.flag("enable_bias", True),
        "tied_embeddings": config.flag("tie_word_embeddings", True),
    }


def _bloom(config: Config) -> dict[str, Any]:
    hidden, heads = config.count("hidden_size", "n_embed"), config.count("n_head")
    return {
        "layers": config.count("n_layer", "num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "ffn": 4 * hidden,
        "vocab": config.count("vocab_size"),
        "max_seq_len": config.count("seq_length", default=2048),
        "position": "alibi",
        "embedding_norm": True,
        "tied_embeddings": config.flag("tie_word_embeddings", True),
    }


def _mpt(config: Config) -> dict[str, Any]:
    hidden, heads = config.count("d_model"), config.count("n_heads")
    attention = config.part("attn_config") if config.has("attn_config") else None
    alibi = attention is not None and attention.flag("alibi", False)
    learned = "learned" if config.flag("learned_pos_emb", True) else "none"
    biased = not config.flag("no_bias", False)
    return {
        "layers": config.count("n_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads if attention is None else attention.count("kv_n_heads", default=heads),
        "ffn": round(config.ratio("expansion_ratio", 4.0) * hidden),
        "vocab": config.count("vocab_size"),
        "max_seq_len": config.count("max_seq_len"),
        "position": "alibi" if alibi else learned,
        "bias": biased,
        "tied_embeddings": config.flag("tie_word_embeddings", True),
    }


def _bert(config: Config) -> dict[str, Any]:
    """As pre-trained, with pooler, masked-language and next-sentence heads."""
    heads = config.count("num_attention_heads")
    return {
        "layers": config.count("num_hidden_layers"),
        "hidden": config.count("hidden_size"),
        "heads": heads,
        "kv_heads": heads,
        "ffn": config.count("intermediate_size"),
        "vocab": config.count("vocab_size"),
        "max_seq_len": config.count("max_position_embeddings"),
        "activation": _activation(config, "hidden_act", default="gelu", gated=False),
        "causal": False,
        "norm_place": "after",
        "embedding_norm": True,
        "token_types": config.count("type_vocab_size", default=2),
        "pooler": True,
        "masked_head": True,
        "tied_embeddings": config.flag("tie_word_embeddings", True),
    }


def _with_vision(config: Config) -> dict[str, Any]:
    """A language model and a vision tower; older Qwen configs keep the language model's keys at
    the top."""
    text = config.part("text_config") if config.has("text_config") else config
    kind = text.word("model_type", default="llama")
    text = Config({**_TEXT_DEFAULTS.get(kind, {}), **text.mapping}, at=text.at)
    reader = _FAMILIES.get(kind.removesuffix("_text"))
    if kind in ("qwen2_vl", "qwen2_5_vl", "qwen2_vl_text", "qwen2_5_vl_text"):
        reader = _qwen2
    elif kind == "gemma3_text":
        reader = _gemma3_text
    if reader is None or reader is _with_vision:
        raise text.unsupported("model_type", "the language model is of no known family")
    fields = reader(text)
    if config.has("tie_word_embeddings"):
        fields["tied_embeddings"] = config.flag("tie_word_embeddings", False)
    return fields | {"towers": (vision_tower(config, fields["hidden"]),)}


_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "gemma3_text": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
    },
}
"""What nested configs of language models leave out in practice."""

_FAMILIES: dict[str, _Reader] = {
    "bert": _bert,
    "bloom": _bloom,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _with_vision,
    "gemma3_text": _gemma3_text,
    "gpt2": _gpt2,
    "gpt_oss": _gpt_oss,
    "kimi_k2": _deepseek,
    "llama": _llama,
    "llava": _with_vision,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "mpt": _mpt,
    "opt": _opt,
    "qwen2": _qwen2,
    "qwen2_5_vl": _with_vision,
    "qwen2_vl": _with_vision,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
}
