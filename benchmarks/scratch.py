"""Scratch environments for peers, and the small model that they and we serve.

Both are kept in the user's cache (`$TWOFOLD_HOME`, else the cache folder), environments by what
they hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from twofold import __version__
from twofold.engines.serving_default import default_document
from twofold.serving_document import make_serving_document, write_serving_plan
from twofold.workload.text import cache_folder

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 512, 8, 8, 4, 1408, 4096, 1024
BEGIN, END = 0, 1
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class PeerAbsent(Exception):
    """A peer cannot be installed or started here; the reason is printed and written down."""


def environment(
    name: str,
    packages: Sequence[str],
    *,
    without: Sequence[str] = (),
    limit_s: float = 1800.0,
    extra: dict[str, str] | None = None,
) -> Path:
    """The Python of a virtual environment that has the packages, made on the first call.

    `without` are packages removed again. PeerAbsent where pip fails or takes longer than `limit_s`.
    """
    asked = json.dumps([sys.version, *packages, *without])
    folder = cache_folder() / "scratch" / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.is_file():
        return python
    print(f"making {folder} for {', '.join(packages)}", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        _pip(python, ["install", "--quiet", *packages], limit_s, extra)
        if without:
            _pip(python, ["uninstall", "--quiet", "--yes", *without], limit_s, extra)
    except subprocess.TimeoutExpired as late:
        raise PeerAbsent(f"pip took more than {limit_s:.0f} s for {packages}") from late
    done.touch()
    return python


def _pip(
    python: Path, arguments: Sequence[str], limit_s: float, extra: dict[str, str] | None
) -> None:
    done = subprocess.run(
        [str(python), "-m", "pip", *arguments],
        env=os.environ | (extra or {}),
        timeout=limit_s,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if "WARNING" not in line][-3:]
        raise PeerAbsent(f"pip {' '.join(arguments)}: {' | '.join(last)}")


def versions(python: Path, names: Sequence[str]) -> dict[str, str]:
    """Of installed packages."""
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *names], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def small_llama() -> Path:
    """A random Llama of 28 million parameters in Hugging Face layout with a tokeniser of its own.

    Weights are as large as keep the spread of activations: logits then differ enough for greedy
    tokens to be comparable between engines. The end token is never the most likely one, so that
    all engines give as many tokens as asked.
    """
    folder = cache_folder() / "scratch" / "small-llama"
    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_config(), indent=1))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": BEGIN, "eos_token_id": END})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<begin>",
                "eos_token": "<end>",
                "chat_template": CHAT_TEMPLATE,
                "model_max_length": CONTEXT,
                "clean_up_tokenization_spaces": False,
            },
            indent=1,
        )
    )
    _train_tokeniser(folder / "tokenizer.json")
    _write_weights(folder / "model.safetensors")
    return folder


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "intermediate_size": FFN,
        "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def _train_tokeniser(path: Path) -> None:
    """Of Python's own library, in ASCII alone: no token is part of a character, so that every
    streamed chunk has text for tools that time texts, not tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<begin>", "<end>"],
        show_progress=False,
    )
    library = Path(sysconfig.get_path("stdlib"))
    texts = [p.read_text(encoding="ascii", errors="ignore") for p in sorted(library.glob("*.py"))]
    made.train_from_iterator(texts, trainer)
    made.save(str(path))


def _write_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(1)
    head = torch.randn(VOCAB, HIDDEN, generator=random) * HIDDEN**-0.5
    head[[BEGIN, END]] = 0.0

    def drawn(rows: int, columns: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(rows, columns, generator=random)

    kv = KV_HEADS * HIDDEN // HEADS
    tensors = {
        "model.embed_tokens.weight": drawn(VOCAB, HIDDEN, 1.0),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": head,
    }
    for layer in range(LAYERS):
        start = f"model.layers.{layer}"
        tensors |= {
            f"{start}.input_layernorm.weight": torch.ones(HIDDEN),
            f"{start}.post_attention_layernorm.weight": torch.ones(HIDDEN),
            f"{start}.self_attn.q_proj.weight": drawn(HIDDEN, HIDDEN, HIDDEN**-0.5),
            f"{start}.self_attn.k_proj.weight": drawn(kv, HIDDEN, HIDDEN**-0.5),
            f"{start}.self_attn.v_proj.weight": drawn(kv, HIDDEN, HIDDEN**-0.5),
            f"{start}.self_attn.o_proj.weight": drawn(HIDDEN, HIDDEN, HIDDEN**-0.5),
            f"{start}.mlp.gate_proj.weight": drawn(FFN, HIDDEN, HIDDEN**-0.5),
            f"{start}.mlp.up_proj.weight": drawn(FFN, HIDDEN, HIDDEN**-0.5),
            f"{start}.mlp.down_proj.weight": drawn(HIDDEN, FFN, FFN**-0.5),
        }
    save_file(tensors, path, metadata={"format": "pt"})


@contextmanager
def our_server(
    model: Path, scratch: Path, *, threads: int, api_key: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`twofold serve` of the model as a user starts it, without the prefix cache: its URL."""
    plain = default_document(model)
    document = make_serving_document(
        model=plain.model,
        workload=plain.workload,
        fleet=plain.fleet,
        plan=replace(plain.plan, threads=threads, prefix_caching=False),
        estimate=None,
        seed=0,
        twofold_version=__version__,
        weights=plain.weights,
    )
    write_serving_plan(document, scratch / "serve.json")
    argv = [sys.executable, "-m", "twofold.cli", "serve", str(scratch / "serve.json")]
    process = subprocess.Popen(
        [*argv, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TWOFOLD_API_KEY": api_key},
    )
    assert process.stdout is not None
    try:
        yield _first_document(process.stdout)["url"], process
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()


def _first_document(lines: IO[str]) -> dict[str, Any]:
    """What the server says when it listens: JSON over several lines."""
    text = ""
    for line in lines:
        text += line
        if line.startswith("}"):
            break
    said: dict[str, Any] = json.loads(text)
    return said
