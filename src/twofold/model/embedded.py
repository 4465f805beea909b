"""What the embedded runtime can build: decoders of GPT-2's and the modern kind, with experts."""

from __future__ import annotations

from twofold.model.architecture import Model


def embedded_lack(model: Model) -> str | None:
    """Why the embedded runtime cannot build the model; None where it can."""
    biases = (model.qkv_bias, model.output_bias, model.mlp_bias)
    lacks = {
        "an operator table is no network": bool(model.operators),
        "it is an encoder": not model.causal,
        "it has latent attention": model.latent is not None,
        "it has towers": bool(model.towers),
        "it has sliding windows": model.window is not None,
        "it has attention sinks": model.attention_sinks,
        f"its norms stand {model.norm_place} the blocks' parts": model.norm_place != "before",
        "its embedding is normalised": model.embedding_norm,
        "its head norms have weights": model.qk_norm_weights,
        f"its positions are '{model.position}'": model.position not in ("learned", "rotary"),
        f"its activation is '{model.activation}'": model.activation in ("relu", "geglu"),
        "its heads are not hidden / heads wide": model.head_size * model.heads != model.hidden,
        "its biases differ between products": any(b not in (None, model.bias) for b in biases),
        "it has token types, a pooler or a masked head": bool(
            model.token_types or model.pooler or model.masked_head
        ),
    }
    return next((lack for lack, present in lacks.items() if present), None)
