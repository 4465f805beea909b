"""Batches, chunks, pages and preemptions change no token: the plain way gives the same ones."""

from __future__ import annotations

from random import Random

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.serve.engines import GATED, GROUPED, LEARNED, Plain, finish, make_engine
from tests.runtime.serve.engines import make_network as make
from twofold.model import Experts, Model
from twofold.runtime.serve.engine import prefix_keys
from twofold.runtime.serve.messages import Request, Token

EXPERTS = Model(
    name="experts", layers=2, hidden=32, heads=4, kv_heads=2, ffn=32, vocab=64, max_seq_len=256,
    norm="rmsnorm", activation="swiglu", position="rotary", bias=False, tied_embeddings=False,
    experts=Experts(count=4, top_k=2, ffn=32),
)  # fmt: skip
MODELS = {model.name: model for model in (GROUPED, GATED, LEARNED, EXPERTS)}
NETWORKS = {name: make(model) for name, model in MODELS.items()}
PLAIN = {name: Plain(network) for name, network in NETWORKS.items()}


def prompt(random: Random, length: int, shared: int = 0) -> tuple[int, ...]:
    return tuple(range(1, shared + 1)) + tuple(random.randrange(64) for _ in range(length))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    block_tokens=st.sampled_from([1, 3, 8]),
    step_tokens=st.integers(3, 40),
    spare_blocks=st.integers(0, 12),
    continuous=st.booleans(),
    caching=st.booleans(),
)
def test_greedy_tokens_are_those_of_one_text_at_a_time(
    name: str,
    seed: int,
    block_tokens: int,
    step_tokens: int,
    spare_blocks: int,
    continuous: bool,
    caching: bool,
) -> None:
    random = Random(seed)
    requests = [
        Request(
            id=id,
            prompt=prompt(random, random.randrange(1, 20), shared=random.choice([0, 9])),
            max_new_tokens=random.randrange(1, 12),
            stop_ids=frozenset({7}),
        )
        for id in range(5)
    ]
    most = max(len(r.prompt) + r.max_new_tokens for r in requests)
    engine = make_engine(
        NETWORKS[name],
        block_tokens=block_tokens,
        max_batched_tokens=step_tokens,
        num_blocks=-(-most // block_tokens) + spare_blocks,
        batching="continuous" if continuous else "static",
        prefix_caching=caching,
    )
    told = finish(engine, requests)
    for request in requests:
        assert [token.token for token in told[request.id]] == PLAIN[name].greedy(request)
        assert [token.finish for token in told[request.id][:-1]] == [None] * (
            len(told[request.id]) - 1
        )
        assert told[request.id][-1].finish is not None
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step_tokens", [5, 64])
def test_logprobs_of_a_prompt_and_its_answer_are_those_of_the_whole_text(
    name: str, step_tokens: int
) -> None:
    request = Request(
        id=0,
        prompt=prompt(Random(1), 33),
        max_new_tokens=6,
        num_logprobs=3,
        scores_prompt=True,
    )
    engine = make_engine(NETWORKS[name], max_batched_tokens=step_tokens)
    tokens = finish(engine, [request])[0]
    text = [*request.prompt, *(token.token for token in tokens)]
    expected = PLAIN[name].logits(text).log_softmax(-1)
    scores = [*(tokens[0].prompt_logprobs or ()), *(token.logprobs for token in tokens)]
    assert len(scores) == len(text) - 1
    for place, score in enumerate(scores):
        assert score is not None
        assert score.chosen == pytest.approx(float(expected[place, text[place + 1]]), abs=2e-5)
        best = expected[place].topk(3)
        assert [value for _, value in score.top] == pytest.approx(best.values.tolist(), abs=2e-5)


def test_scores_of_a_prompt_survive_that_it_lost_its_blocks() -> None:
    first = Request(id=0, prompt=prompt(Random(1), 20), max_new_tokens=20)
    scored = Request(
        id=1, prompt=prompt(Random(2), 24), max_new_tokens=4, num_logprobs=0, scores_prompt=True
    )
    engine = make_engine(NETWORKS["gated"], num_blocks=11, max_batched_tokens=6)
    tokens = finish(engine, [first, scored])[1]
    assert engine._preemptions > 0
    text = list(scored.prompt)
    expected = PLAIN["gated"].logits(text).log_softmax(-1)
    told = [score.chosen for score in tokens[0].prompt_logprobs or ()]
    wanted = [float(expected[place, text[place + 1]]) for place in range(len(text) - 1)]
    assert told == pytest.approx(wanted, abs=2e-5)


def test_a_beginning_that_is_known_is_not_computed_again() -> None:
    engine = make_engine(NETWORKS["grouped"], block_tokens=4)
    request = Request(id=0, prompt=prompt(Random(3), 18), max_new_tokens=3)
    again = Request(id=1, prompt=request.prompt, max_new_tokens=3)
    first = finish(engine, [request])[0]
    second = finish(engine, [again])[1]
    assert (first[0].cached_tokens, second[0].cached_tokens) == (0, 16)
    assert [token.token for token in first] == [token.token for token in second]


def test_a_full_cache_preempts_and_no_token_changes() -> None:
    requests = [Request(id=id, prompt=prompt(Random(id), 10), max_new_tokens=30) for id in range(4)]
    engine = make_engine(NETWORKS["gated"], num_blocks=14, block_tokens=4)
    told = finish(engine, requests)
    assert engine._preemptions > 0
    for request in requests:
        assert [token.token for token in told[request.id]] == PLAIN["gated"].greedy(request)


def test_a_window_hides_what_lies_before_it() -> None:
    from dataclasses import replace

    whole, cut = NETWORKS["gated"], make(replace(GATED, window=6, global_every=None))
    text = list(prompt(Random(4), 30))
    for network, same in ((whole, False), (cut, True)):
        # 2 layers see 2 x (6 - 1) tokens back at most
        scores = []
        for first in (3, 5):
            request = Request(
                id=first, prompt=(first, *text), max_new_tokens=1, num_logprobs=0,
            )  # fmt: skip
            scores.append(finish(make_engine(network, max_batched_tokens=9), [request])[first][0])
        differ = scores[0].logprobs != scores[1].logprobs
        assert differ is not same


def test_whoever_cancels_leaves_nothing_behind() -> None:
    engine = make_engine(NETWORKS["gated"])
    kept = Request(id=0, prompt=prompt(Random(5), 6), max_new_tokens=8)
    for request in (kept, Request(id=1, prompt=prompt(Random(6), 9), max_new_tokens=50)):
        engine.add(request)
    engine.step()
    engine.cancel(1)
    engine.cancel(1)
    tokens = []
    while not engine.is_idle:
        tokens += engine.step()[0].tokens
    assert {token.id for token in tokens} == {0}
    assert engine.scheduler.pool.used_fraction == 0
    assert not engine._texts


def test_end_tokens_do_not_come_before_the_least_length() -> None:
    network, plain = NETWORKS["gated"], PLAIN["gated"]
    request = Request(id=0, prompt=prompt(Random(7), 6), max_new_tokens=10)
    stop = frozenset(plain.greedy(request)[:2])
    barred = Request(
        id=1, prompt=request.prompt, max_new_tokens=10, min_new_tokens=5, stop_ids=stop
    )
    tokens = [token.token for token in finish(make_engine(network), [barred])[1]]
    assert not stop & set(tokens[:5])
    assert len(tokens) >= 5


def test_a_seed_gives_the_same_draw_whoever_else_is_there() -> None:
    network = NETWORKS["gated"]
    drawn = Request(
        id=0, prompt=prompt(Random(8), 6), max_new_tokens=12, temperature=1.5, top_p=0.9, seed=11
    )
    alone = finish(make_engine(network), [drawn])[0]
    others = [
        Request(id=id, prompt=prompt(Random(id), 9), max_new_tokens=20, temperature=1.0)
        for id in range(1, 5)
    ]
    beside = finish(make_engine(network), [*others, drawn])[0]
    assert [token.token for token in alone] == [token.token for token in beside]


@given(
    st.lists(st.integers(0, 300), max_size=40).map(tuple),
    st.lists(st.integers(0, 300), max_size=40).map(tuple),
    st.integers(1, 5),
)
def test_equal_keys_mean_equal_beginnings(
    a: tuple[int, ...], b: tuple[int, ...], block_tokens: int
) -> None:
    keys_a, keys_b = prefix_keys(a, block_tokens), prefix_keys(b, block_tokens)
    assert len(keys_a) == len(a) // block_tokens
    for index, (one, other) in enumerate(zip(keys_a, keys_b, strict=False), start=1):
        same = a[: index * block_tokens] == b[: index * block_tokens]
        assert (one == other) == same


def test_bf16_stays_near_fp32() -> None:
    from twofold.policy.batching import Limits
    from twofold.runtime.serve.cache import KvCache
    from twofold.runtime.serve.engine import Engine

    network = make(GATED).to(torch.bfloat16)
    network.fill_buffers(torch.device("cpu"))
    limits = Limits(max_num_seqs=4, max_batched_tokens=16, block_tokens=4, num_blocks=64)
    cache = KvCache.make(GATED, 64, 4, torch.bfloat16, torch.device("cpu"))
    request = Request(
        id=0, prompt=prompt(Random(9), 40), max_new_tokens=1, num_logprobs=0, scores_prompt=True
    )
    half = finish(Engine(network, cache, limits), [request])[0][0].prompt_logprobs or ()
    full = finish(make_engine(NETWORKS["gated"]), [request])[0][0].prompt_logprobs or ()
    mean_half = sum(score.chosen for score in half) / len(half)
    mean_full = sum(score.chosen for score in full) / len(full)
    assert mean_half == pytest.approx(mean_full, rel=0.05)
    assert mean_half != mean_full


def test_what_fails_for_one_request_ends_that_one_alone() -> None:
    """A `top_k` that no tensor holds stands for a bug that one request hits."""
    good = [
        Request(
            id=id, prompt=(3, 4, id), max_new_tokens=9, temperature=0.8, seed=id, num_logprobs=2
        )
        for id in (1, 2)
    ]
    bad = Request(id=3, prompt=(3, 4, 3), max_new_tokens=9, temperature=0.8, top_k=2**80)
    engine = make_engine(NETWORKS["grouped"])
    alone = finish(engine, good)
    for request in (good[0], bad, good[1]):
        engine.add(request)
    told: dict[int, list[Token]] = {1: [], 2: []}
    failures = []
    while not engine.is_idle:
        stepped = engine.step()[0]
        failures += stepped.failures
        for token in stepped.tokens:
            told[token.id].append(token)
    assert [failure.id for failure in failures] == [3]
    assert [[t.token for t in told[id]] for id in told] == [
        [t.token for t in alone[id]] for id in alone
    ]
    assert engine.counts().kv_used_fraction == 0


def test_what_can_never_fit_is_not_taken() -> None:
    engine = make_engine(NETWORKS["grouped"], num_blocks=2)
    with pytest.raises(ValueError, match="do not fit the cache"):
        engine.add(Request(id=1, prompt=(1,) * 8, max_new_tokens=9))
    assert engine.is_idle
