"""Networks in Keras 3 that tests import by name, of Keras's own layers alone."""

from __future__ import annotations

from typing import Any

LAYERS, HIDDEN, HEADS, FFN, VOCAB, SEQ = 4, 256, 8, 1024, 8192, 128


def decoder(length: int | None = SEQ) -> Any:
    """The decoder that is written in three frameworks."""
    import keras
    from keras import layers

    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(VOCAB, HIDDEN)(tokens)
    for _ in range(LAYERS):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        attend = layers.MultiHeadAttention(HEADS, HIDDEN // HEADS)
        x = x + attend(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.Dense(HIDDEN)(layers.Dense(FFN, activation="gelu")(y))
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    return keras.Model(tokens, layers.Dense(VOCAB, use_bias=False)(x))
