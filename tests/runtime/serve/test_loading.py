"""Weights from elsewhere mean here what they mean there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from tests.runtime.serve.documents import serving_document
from twofold.errors import EnvironmentLack, InputError
from twofold.runtime.serve.assembly import make_engine
from twofold.runtime.serve.huggingface import FAMILIES
from twofold.runtime.serve.loading import load_network
from twofold.runtime.serve.messages import Request
from twofold.sources.models import find_model

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_logits_and_tokens_that_transformers_gives(family: str) -> None:
    folder = GOLDEN / family
    expected = json.loads((folder / "expected.json").read_text())
    document = serving_document(
        model=find_model(str(folder)), weights=str(folder), max_batched_tokens=11, num_blocks=16
    )
    engine = make_engine(document)
    vocab = document.model.vocab
    request = Request(
        id=0, prompt=tuple(expected["tokens"]), max_new_tokens=12, num_logprobs=vocab,
        scores_prompt=True,
    )  # fmt: skip
    engine.add(request)
    told = []
    while not engine.is_idle:
        told += engine.step()[0].tokens
    assert [token.token for token in told] == expected["greedy"]
    scores = [*(told[0].prompt_logprobs or ()), told[0].logprobs]
    for place, logits in expected["logits"].items():
        wanted = torch.tensor(logits).log_softmax(-1)
        score = scores[int(place)]
        assert score is not None
        found = torch.empty(vocab)
        for token, value in score.top:
            found[token] = value
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_a_folder_of_another_shape_is_refused() -> None:
    folder = GOLDEN / "qwen2"
    model = replace(find_model(str(folder)), ffn=32)
    with pytest.raises(InputError, match=r"gate_proj.weight' is \[24, 16\]"):
        load_network(serving_document(model=model, weights=str(folder)), CPU)


def test_a_family_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="family 'gpt2'"):
        load_network(serving_document(weights=str(tmp_path)), CPU)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither safetensors nor"):
        load_network(serving_document(weights=str(tmp_path)), CPU)


def test_random_weights_follow_the_seed() -> None:
    def weights(**changes: Any) -> torch.Tensor:
        network = load_network(replace(serving_document(), **changes), CPU)
        weight: torch.Tensor = network.head.weight
        return weight

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights(seed=4))


def test_more_blocks_than_memory_are_refused() -> None:
    with pytest.raises(EnvironmentLack, match="there is room for"):
        make_engine(serving_document(num_blocks=10**12))


@pytest.mark.slow
def test_a_trained_run_is_served_with_the_weights_it_was_trained_to(
    text: str, tmp_path: Path
) -> None:
    import subprocess

    from tests.runtime.serve.engines import Plain
    from tests.runtime.test_train import ADAMW, MODEL, command, written

    plan = written(tmp_path / "run", text, recipe=ADAMW, steps=12)
    subprocess.run(command(plan, options=("--checkpoint-every-s", "0")), check=True)
    document = serving_document(model=MODEL, weights=str(tmp_path / "run"))
    network = load_network(document, CPU)
    held_out = list(b"def f1_2(x): return x * 2 + 1\n")
    logits = Plain(network).logits(held_out)
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(held_out[1:]))
    untrained = load_network(serving_document(model=MODEL), CPU)
    naive = Plain(untrained).logits(held_out)
    assert float(loss) < float(
        torch.nn.functional.cross_entropy(naive[:-1], torch.tensor(held_out[1:]))
    )
    engine = make_engine(document)
    engine.add(
        Request(id=0, prompt=tuple(held_out), max_new_tokens=1, num_logprobs=0, scores_prompt=True)
    )
    token = engine.step()[0].tokens[0]
    scores = [score.chosen for score in token.prompt_logprobs or ()]
    assert -sum(scores) / len(scores) == pytest.approx(float(loss), abs=1e-4)
