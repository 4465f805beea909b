"""`config.json` files of many families, and what is wrong with bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twofold.errors import InputError
from twofold.model import num_parameters, operator_table
from twofold.sources import find_model, model_from_config, supported_model_types

LLAMA: dict[str, Any] = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": False,
    "attention_bias": False, "hidden_act": "silu", "rope_theta": 500000.0,
}  # fmt: skip
GEMMA = {
    "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "hidden_size": 5376,
    "intermediate_size": 21504, "num_hidden_layers": 62, "sliding_window": 1024,
    "vocab_size": 262208,
}  # fmt: skip
QWEN_VL: dict[str, Any] = {
    "num_hidden_layers": 28, "hidden_size": 3584, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
    "max_position_embeddings": 128000, "use_sliding_window": False, "sliding_window": 32768,
    "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128,
    "num_key_value_heads": 128, "intermediate_size": 18432, "vocab_size": 129280,
    "max_position_embeddings": 163840, "q_lora_rank": 1536, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3, "moe_layer_freq": 1, "topk_method": "noaux_tc",
    "num_nextn_predict_layers": 1, "tie_word_embeddings": False,
}  # fmt: skip

PUBLISHED: list[tuple[dict[str, Any], int]] = [
    (LLAMA, 8_030_261_248),
    (
        {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_inner": None,
         "vocab_size": 50257, "n_positions": 1024, "activation_function": "gelu_new"},
        124_439_808,
    ),
    (
        LLAMA | {"model_type": "mistral", "vocab_size": 32000, "sliding_window": 4096},
        7_241_732_096,
    ),
    (
        LLAMA | {"model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8,
                 "num_experts_per_tok": 2, "sliding_window": None},
        46_702_792_704,
    ),
    (
        {"model_type": "qwen2", **QWEN_VL},
        7_615_616_512,
    ),
    (
        LLAMA | {"model_type": "qwen3", "num_hidden_layers": 36, "head_dim": 128,
                 "intermediate_size": 12288, "vocab_size": 151936},
        8_190_735_360,
    ),
    (
        LLAMA | {"model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048,
                 "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
                 "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
                 "decoder_sparse_step": 1, "mlp_only_layers": []},
        30_532_122_624,
    ),
    (DEEPSEEK | {"model_type": "deepseek_v3"}, 671_026_419_200),
    (
        DEEPSEEK | {"model_type": "kimi_k2", "num_attention_heads": 64, "n_routed_experts": 384,
                    "first_k_dense_replace": 1, "vocab_size": 163840},
        1_026_408_232_448,
    ),
    (
        DEEPSEEK | {"model_type": "deepseek_v2", "num_hidden_layers": 27, "hidden_size": 2048,
                    "num_attention_heads": 16, "intermediate_size": 10944, "vocab_size": 102400,
                    "q_lora_rank": None, "n_routed_experts": 64, "n_shared_experts": 2,
                    "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
                    "first_k_dense_replace": 1, "topk_method": "greedy"},
        15_706_484_224,
    ),
    (
        {"model_type": "gpt_oss", "num_hidden_layers": 24, "hidden_size": 2880, "head_dim": 64,
         "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 2880,
         "vocab_size": 201088, "num_local_experts": 32, "num_experts_per_tok": 4,
         "sliding_window": 128, "attention_bias": True, "tie_word_embeddings": False,
         "layer_types": ["sliding_attention", "full_attention"] * 12},
        20_914_757_184,
    ),
    (GEMMA | {"model_type": "gemma3_text"}, 27_009_346_304),
    (
        {"model_type": "gemma3", "mm_tokens_per_image": 256,
         "text_config": GEMMA | {"model_type": "gemma3_text"},
         "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152,
                           "image_size": 896, "intermediate_size": 4304,
                           "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}},
        27_432_406_640,
    ),
    (
        {"model_type": "gemma2", "num_hidden_layers": 46, "hidden_size": 4608, "head_dim": 128,
         "num_attention_heads": 32, "num_key_value_heads": 16, "intermediate_size": 36864,
         "vocab_size": 256000, "sliding_window": 4096, "final_logit_softcapping": 30.0},
        27_227_128_320,
    ),
    (
        {"model_type": "bert", "num_hidden_layers": 24, "hidden_size": 1024,
         "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 30522,
         "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu"},
        336_226_108,
    ),
    (
        {"model_type": "mpt", "d_model": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": 50432,
         "max_seq_len": 2048, "expansion_ratio": 4, "no_bias": True, "learned_pos_emb": True,
         "attn_config": {"alibi": True}},
        6_649_286_656,
    ),
    (
        {"model_type": "opt", "num_hidden_layers": 12, "hidden_size": 768, "ffn_dim": 3072,
         "num_attention_heads": 12, "vocab_size": 50272, "max_position_embeddings": 2048,
         "word_embed_proj_dim": 768, "do_layer_norm_before": True},
        125_239_296,
    ),
    (
        {"model_type": "bloom", "n_layer": 70, "n_embed": 14336, "n_head": 112,
         "vocab_size": 250880, "seq_length": 2048},
        176_247_271_424,
    ),
    (
        {"model_type": "qwen2_5_vl", **QWEN_VL,
         "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420,
                           "num_heads": 16, "in_chans": 3, "patch_size": 14, "window_size": 112,
                           "spatial_merge_size": 2, "fullatt_block_indexes": [7, 15, 23, 31]}},
        8_292_166_656,
    ),
    (
        {"model_type": "qwen2_vl", **QWEN_VL,
         "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16,
                           "in_chans": 3, "hidden_size": 3584, "spatial_patch_size": 14,
                           "spatial_merge_size": 2, "temporal_patch_size": 2}},
        8_291_375_616,
    ),
    (
        {"model_type": "llava",
         "text_config": {"model_type": "llama", "max_position_embeddings": 4096,
                         "vocab_size": 32064},
         "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024,
                           "image_size": 336, "intermediate_size": 4096, "patch_size": 14,
                           "num_attention_heads": 16, "num_hidden_layers": 24}},
        7_063_427_072,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "published"), PUBLISHED, ids=[config["model_type"] for config, _ in PUBLISHED]
)
def test_configs_have_their_published_parameters(config: dict[str, Any], published: int) -> None:
    model = model_from_config(config, name="it")
    assert model.name == "it"
    assert num_parameters(model) == published


def test_every_family_but_one_is_tested() -> None:
    assert set(supported_model_types()) - {c["model_type"] for c, _ in PUBLISHED} == {"gemma"}


def test_windows_are_where_the_config_puts_them() -> None:
    model = model_from_config(GEMMA | {"model_type": "gemma3_text"})
    repeats = {row.name: row.repeat for row in operator_table(model) if row.kind == "attention"}
    assert repeats == {"window_attention": 52, "attention": 10}


def test_a_folder_and_a_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "my-llama").mkdir()
    path = tmp_path / "my-llama" / "config.json"
    path.write_text(json.dumps(LLAMA))
    model = find_model(str(path.parent))
    assert model == find_model(str(path))
    assert model.name == "my-llama"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "lama"}, "nearest is 'llama'"),
        ({"model_type": "t5"}, "supported are"),
        ({"model_type": None}, "'model_type' is missing"),
        ({"model_type": 3}, "must be a text"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": float("nan")}, "hidden_size is nan"),
        ({"hidden_size": -4096}, "at least 1"),
        ({"hidden_size": 4096.5}, "whole number"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": "big"}, "hidden_size is 'big'"),
        ({"hidden_size": 10**400}, "at most 1,000,000,000"),
        ({"num_attention_heads": 33}, "33 heads"),
        ({"num_key_value_heads": 5}, "5 key/value heads"),
        ({"hidden_act": "tanh"}, "not supported"),
        ({"tie_word_embeddings": "no"}, "true or false"),
        ({"model_type": "mixtral"}, "'num_local_experts' is missing"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4}, "4 of 2"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "not supported"),
        ({"model_type": "gemma2", "final_logit_softcapping": float("nan")}, "positive number"),
        ({"model_type": "gemma2", "sliding_window": 8,
          "layer_types": ["full_attention", "sliding_attention"]}, "equal distances"),
        ({"model_type": "llava", "text_config": 7}, "not a table"),
        ({"model_type": "llava", "vision_config": {"model_type": "vit"},
          "text_config": {}}, "vision tower 'vit'"),
    ],
)  # fmt: skip
def test_a_bad_config_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        model_from_config(LLAMA | change)
    assert said in str(caught.value)
    assert caught.value.at
    assert caught.value.help


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"model_type": NaN}'])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError):
        find_model(str(path))
