"""A peer in its own environment, for `serving.py`: an answer for every line of standard input.

    python serving_peer.py hf|llama MODEL_FOLDER THREADS
    python serving_peer.py gguf MODEL_FOLDER FILE

A line is {"prompts": [[token, ...], ...], "output_tokens": n}; the answer is {"time_s", "answers"},
greedy tokens of every prompt. `hf` is one static batch of `generate`; `llama` has one sequence at
a time, as llama-cpp-python offers no other. `gguf` writes the same fp32 weights for llama.cpp.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Generate = Callable[[list[list[int]], int], list[list[int]]]
CONTEXT = 1024


def main() -> None:
    kind, folder, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if kind == "gguf":
        write_gguf(folder, Path(last))
        return
    generate = {"hf": hugging_face, "llama": llama_cpp}[kind](folder, int(last))
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    print(json.dumps({"ready": True}), file=said, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        start_s = time.perf_counter()
        answers = generate(asked["prompts"], asked["output_tokens"])
        time_s = time.perf_counter() - start_s
        print(json.dumps({"time_s": time_s, "answers": answers}), file=said, flush=True)


def hugging_face(folder: Path, threads: int) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def generate(prompts: list[list[int]], output_tokens: int) -> list[list[int]]:
        asked = torch.tensor(prompts)
        told = model.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            do_sample=False,
            min_new_tokens=output_tokens,
            max_new_tokens=output_tokens,
            pad_token_id=0,
        )
        answers: list[list[int]] = told[:, asked.shape[1] :].tolist()
        return answers

    return generate


def llama_cpp(file: Path, threads: int) -> Generate:
    from llama_cpp import Llama

    model = Llama(
        str(file), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def generate(prompts: list[list[int]], output_tokens: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            tokens = model.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=True)
            answers.append([next(tokens) for _ in range(output_tokens)])
        return answers

    return generate


def write_gguf(folder: Path, file: Path) -> None:
    """The Hugging Face folder as GGUF, all in fp32. llama.cpp turns neighbouring channels where
    Hugging Face turns the halves of a head, so rows of queries and keys are put in that order."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    ends = (config["bos_token_id"], config["eos_token_id"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary["vocab"], key=vocabulary["vocab"].get))
    kinds = [gguf.TokenType.NORMAL] * config["vocab_size"]
    for end in ends:
        kinds[end] = gguf.TokenType.CONTROL
    writer.add_token_types(kinds)
    merges = vocabulary["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(ends[0])
    writer.add_eos_token_id(ends[1])
    writer.add_add_bos_token(False)

    def turned(weight: Any, count: int) -> Any:
        halves = weight.reshape(count, 2, -1, weight.shape[1])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))

    for name, weight in load_file(folder / "model.safetensors").items():
        if name.endswith("q_proj.weight"):
            weight = turned(weight, heads)
        elif name.endswith("k_proj.weight"):
            weight = turned(weight, kv_heads)
        writer.add_tensor(_gguf_name(name), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name: str) -> str:
    name = name.removesuffix(".weight")
    if not name.startswith("model.layers."):
        return f"{_NAMES[name]}.weight"
    layer, part = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_NAMES[part]}.weight"


if __name__ == "__main__":
    main()
