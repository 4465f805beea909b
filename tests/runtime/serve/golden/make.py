"""Makes what lies beside it: tiny random models of each family, and what transformers says of them.

Run with a Python that has transformers and torch: `python make.py`. `expected.json` holds the
tokens of a text, the logits at a few of its places, and 12 greedy tokens after it.
"""

import json
import platform
from pathlib import Path

import torch
import transformers

SIZES = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"rope_parameters": LLAMA3}),
    "mistral": (transformers.MistralConfig, {"sliding_window": 8, "head_dim": 8}),
    "mixtral": (
        transformers.MixtralConfig,
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 8}),
    "qwen3_moe": (
        transformers.Qwen3MoeConfig,
        {
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "norm_topk_prob": True,
        },
    ),
}
PLACES = (0, 7, 20, 29)


def make(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    kind, extra = FAMILIES[name]
    config = kind(**SIZES | extra)
    config._attn_implementation = "eager"
    network = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.25)
    network.save_pretrained(folder)
    tokens = torch.randint(3, 48, (30,)).tolist()
    with torch.no_grad():
        logits = network(torch.tensor([tokens])).logits[0]
        text = list(tokens)
        for _ in range(12):
            text.append(int(network(torch.tensor([text])).logits[0, -1].argmax()))
    (folder / "expected.json").write_text(
        json.dumps(
            {
                "tokens": tokens,
                "logits": {str(at): [round(v, 6) for v in logits[at].tolist()] for at in PLACES},
                "greedy": text[len(tokens) :],
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            }
        )
    )
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    for name in FAMILIES:
        make(name, Path(__file__).parent / name)
