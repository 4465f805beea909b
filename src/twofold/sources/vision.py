"""The vision tower of a vision-language config: CLIP, SigLIP, Qwen2-VL, Qwen2.5-VL."""

from __future__ import annotations

from twofold.errors import InputError
from twofold.model import Tower
from twofold.sources.config import Config

_QWEN_PATCHES = 1024
"""One picture of 448 x 448 pixels a sequence: assumed, for these towers take any size."""


def vision_tower(config: Config, hidden: int) -> Tower:
    """The tower of `vision_config`, with the projector to the language model's `hidden`."""
    vision = config.part("vision_config")
    kind = vision.word("model_type", default=config.word("model_type"))
    if kind == "clip_vision_model":
        return _clip(vision, hidden)
    if kind == "siglip_vision_model" and config.word("model_type") == "gemma3":
        return _siglip(config, vision)
    if kind == "qwen2_vl":
        return _qwen2_vl(vision)
    if kind == "qwen2_5_vl":
        return _qwen2_5_vl(vision)
    raise InputError(
        f"the vision tower '{kind}' is not supported",
        at=f"{vision.at}, model_type",
        help="supported are clip_vision_model (LLaVA), siglip_vision_model (Gemma 3), qwen2_vl, "
        "qwen2_5_vl; or write the tower as a TOML of your own",
    )


def _clip(vision: Config, hidden: int) -> Tower:
    """LLaVA 1.5: the class token joins the patches; two products project (Liu et al. 2023)."""
    patch, patches = _grid(vision, size=224, patch=32)
    return Tower(
        name="vision",
        layers=vision.count("num_hidden_layers", default=12),
        hidden=vision.count("hidden_size", default=768),
        heads=vision.count("num_attention_heads", default=12),
        ffn=vision.count("intermediate_size", default=3072),
        tokens=patches + 1,
        patch_elements=3 * patch**2,
        learned_positions=patches + 1,
        class_token=True,
        input_norm=True,
        projector_ffn=hidden,
    )


def _siglip(config: Config, vision: Config) -> Tower:
    """Gemma 3: patches are averaged down to a fixed number of tokens, normalised, projected."""
    patch, patches = _grid(vision, size=224, patch=16)
    tokens = config.count("mm_tokens_per_image", default=256)
    return Tower(
        name="vision",
        layers=vision.count("num_hidden_layers", default=12),
        hidden=vision.count("hidden_size", default=768),
        heads=vision.count("num_attention_heads", default=12),
        ffn=vision.count("intermediate_size", default=3072),
        tokens=patches,
        patch_elements=3 * patch**2,
        patch_bias=True,
        learned_positions=patches,
        merge=max(1, patches // tokens),
        pooled=True,
        projector_norm="rmsnorm",
        projector_bias=False,
    )


def _qwen2_vl(vision: Config) -> Tower:
    """arXiv 2409.12191, section 2: 2D rotary positions, two frames a patch, 2 x 2 merged."""
    width = vision.count("embed_dim", default=1280)
    merge = vision.count("spatial_merge_size", default=2) ** 2
    return Tower(
        name="vision",
        layers=vision.count("depth", default=32),
        hidden=width,
        heads=vision.count("num_heads", default=16),
        ffn=round(vision.ratio("mlp_ratio", 4.0) * width),
        tokens=_QWEN_PATCHES,
        patch_elements=_qwen_patch(vision),
        final_norm=False,
        merge=merge,
        projector_norm="layernorm",
        projector_ffn=merge * width,
    )


def _qwen2_5_vl(vision: Config) -> Tower:
    """arXiv 2502.13923, section 2.1: windows of 112 x 112 pixels but for some global layers."""
    width = vision.count("hidden_size", default=1280)
    layers = vision.count("depth", default=32)
    merge = vision.count("spatial_merge_size", default=2) ** 2
    side = vision.count("window_size", default=112) // vision.count("patch_size", default=14)
    whole = vision.counts("fullatt_block_indexes") or (7, 15, 23, 31)
    return Tower(
        name="vision",
        layers=layers,
        hidden=width,
        heads=vision.count("num_heads", default=16),
        ffn=vision.count("intermediate_size", default=3420),
        tokens=_QWEN_PATCHES,
        patch_elements=_qwen_patch(vision),
        norm="rmsnorm",
        activation="swiglu",
        final_norm=False,
        window=side**2,
        global_every=max(1, layers // len(whole)),
        merge=merge,
        projector_norm="rmsnorm",
        projector_ffn=merge * width,
    )


def _qwen_patch(vision: Config) -> int:
    channels = vision.count("in_channels", "in_chans", default=3)
    frames = vision.count("temporal_patch_size", default=2)
    return channels * frames * vision.count("patch_size", "spatial_patch_size", default=14) ** 2


def _grid(vision: Config, *, size: int, patch: int) -> tuple[int, int]:
    """Pixels of a patch's side, and patches of a picture."""
    side = vision.count("patch_size", default=patch)
    return side, (vision.count("image_size", default=size) // side) ** 2
