"""What a token leaves in the key-value cache, and what reading it back costs."""

from __future__ import annotations

from twofold.model.architecture import Model


def cache_elements(model: Model) -> int:
    """Elements that one token keeps in one layer.

    Keys and values of its key-value heads; of latent attention the compressed vector and the
    rotary key that all heads share (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
    """
    if model.latent is not None:
        return model.latent.kv_rank + model.latent.rope_dim
    return 2 * model.kv_heads * model.head_size


def cache_shards(model: Model, tensor_degree: int) -> int:
    """Over how many tensor ranks they are divided: whole heads, and a latent vector not at all."""
    return 1 if model.latent is not None else min(tensor_degree, model.kv_heads)


def decode_key_flop(model: Model) -> float:
    """FLOP in one layer of one query on one cached key, all heads: 4 N D.

    Latent attention queries the compressed cache itself, the products up being absorbed into
    query and output (same paper, section 2.1.2): 2 N (2 kv_rank + rope_dim).
    """
    if model.latent is not None:
        return 2.0 * model.heads * (2 * model.latent.kv_rank + model.latent.rope_dim)
    return 4.0 * model.heads * model.head_size
