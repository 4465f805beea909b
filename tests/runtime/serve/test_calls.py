"""Bodies of requests: what is understood, and how each fault is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("starlette")

from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.serve.documents import serving_document
from twofold.runtime.serve.api.calls import Call, Kind, read_call
from twofold.runtime.serve.api.errors import ApiError
from twofold.runtime.serve.api.served import Served, describe

SERVED = describe(serving_document(), num_blocks=8, max_queue=4)
"""8 blocks of 16 tokens: 128 tokens of prompt and answer."""


def completion(served: Served = SERVED, **body: Any) -> Call:
    return read_call("completion", json.dumps({"prompt": "hi"} | body).encode(), served)


def chat(**body: Any) -> Call:
    messages = [{"role": "user", "content": "hi"}]
    return read_call("chat", json.dumps({"messages": messages} | body).encode(), SERVED)


def test_defaults_are_openais() -> None:
    call = completion()
    assert call.prompts == ((104, 105),)
    assert (call.max_new_tokens, call.temperature, call.top_p, call.top_k) == ((16,), 1.0, 1.0, 0)
    assert (call.stop_ids, call.stream, call.num_logprobs) == (frozenset({0}), False, None)


def test_a_chat_may_use_the_whole_context() -> None:
    call = chat()
    prompt = b"user: hi\nassistant:"
    assert bytes(call.prompts[0]) == prompt
    assert call.max_new_tokens == (128 - len(prompt),)
    assert chat(max_tokens=3).max_new_tokens == (3,)
    assert chat(max_completion_tokens=5, max_tokens=3).max_new_tokens == (5,)


def test_prompts_may_be_text_or_tokens_one_or_many() -> None:
    assert completion(prompt=[1, 2]).prompts == ((1, 2),)
    assert completion(prompt=["a", "bc"]).prompts == ((97,), (98, 99))
    assert completion(prompt=[[1], [2, 3]]).prompts == ((1,), (2, 3))


def test_vllms_fields_are_understood() -> None:
    call = completion(
        ignore_eos=True, min_tokens=4, top_k=-1, stop_token_ids=[9], return_token_ids=True,
        logprobs=2, stop="x", stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    assert (call.stop_ids, call.min_new_tokens, call.top_k) == (frozenset({9}), 4, 0)
    assert (call.num_logprobs, call.stop, call.include_usage) == (2, ("x",), True)
    assert completion(echo=True, max_tokens=0, logprobs=1).max_new_tokens == (0,)


def test_fields_that_ask_for_nothing_pass() -> None:
    completion(n=1, presence_penalty=0, logit_bias={}, suffix=None, user="me", best_of=1)


@pytest.mark.parametrize(
    ("kind", "body", "status", "param", "code"),
    [
        ("completion", b"{", 400, None, "invalid_json"),
        ("completion", b"\xff\xfe", 400, None, "invalid_json"),
        ("completion", b"[" * 100_000, 400, None, "invalid_json"),
        ("completion", b"[]", 400, None, "invalid_json"),
        ("completion", b'{"prompt": "a", "temperature": NaN}', 400, None, "invalid_json"),
        ("completion", {}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": ""}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": []}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": [True]}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": [256]}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": [-1]}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": ["a", 1]}, 400, "prompt", "invalid_value"),
        ("completion", {"prompt": "a" * 128}, 400, "prompt", "context_length_exceeded"),
        (
            "completion",
            {"prompt": "a", "max_tokens": 128},
            400,
            "prompt",
            "context_length_exceeded",
        ),
        ("completion", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ("completion", {"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens", "invalid_value"),
        ("completion", {"prompt": "a", "max_tokens": True}, 400, "max_tokens", "invalid_value"),
        ("completion", {"prompt": "a", "model": "gpt"}, 404, "model", "model_not_found"),
        ("completion", {"prompt": "a", "model": 3}, 400, "model", "invalid_value"),
        ("completion", {"prompt": "a", "temperature": -1}, 400, "temperature", "invalid_value"),
        ("completion", {"prompt": "a", "temperature": "1"}, 400, "temperature", "invalid_value"),
        ("completion", {"prompt": "a", "top_p": 0}, 400, "top_p", "invalid_value"),
        ("completion", {"prompt": "a", "logprobs": 21}, 400, "logprobs", "invalid_value"),
        ("completion", {"prompt": "a", "stop": [""]}, 400, "stop", "invalid_value"),
        ("completion", {"prompt": "a", "stop": 3}, 400, "stop", "invalid_value"),
        ("completion", {"prompt": "a", "min_tokens": 17}, 400, "min_tokens", "invalid_value"),
        ("completion", {"prompt": "a", "seed": 2**70}, 400, "seed", "invalid_value"),
        ("completion", {"prompt": "a", "top_k": 2**80}, 400, "top_k", "invalid_value"),
        ("completion", {"prompt": "a", "top_k": -2}, 400, "top_k", "invalid_value"),
        ("completion", {"prompt": "a", "max_tokens": 2**80}, 400, "max_tokens", "invalid_value"),
        ("completion", {"prompt": "a", "min_tokens": 2**80}, 400, "min_tokens", "invalid_value"),
        ("completion", {"prompt": "a", "top_k": 10**400}, 400, "top_k", "invalid_value"),
        ("completion", {"prompt": [2**80]}, 400, "prompt", "invalid_value"),
        (
            "completion",
            {"prompt": "a", "min_tokens": 3, "stop_token_ids": list(range(256))},
            400,
            "stop_token_ids",
            "invalid_value",
        ),
        ("completion", b'{"prompt": "\\ud800"}', 400, "prompt", "invalid_value"),
        ("completion", b'{"prompt": ["ok", "\\uDFFF"]}', 400, "prompt", "invalid_value"),
        ("completion", b'{"prompt": "a", "\\ud800": 1}', 400, "\\ud800", "invalid_value"),
        ("completion", b'{"prompt": "a", "model": "\\ud83d"}', 400, "model", "invalid_value"),
        ("completion", b'{"prompt": "\xed\xa0\x80"}', 400, None, "invalid_json"),
        (
            "chat",
            b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
            400,
            "messages",
            "invalid_value",
        ),
        ("completion", {"prompt": "a", "n": 2}, 400, "n", "unsupported_parameter"),
        ("completion", {"prompt": "a", "max_token": 2}, 400, "max_token", "unknown_parameter"),
        (
            "completion",
            {"prompt": "a", "stream_options": 1},
            400,
            "stream_options",
            "invalid_value",
        ),
        ("chat", {}, 400, "messages", "invalid_value"),
        ("chat", {"messages": []}, 400, "messages", "invalid_value"),
        ("chat", {"messages": [{"role": "user"}]}, 400, "messages[0].content", "invalid_value"),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages[0].content",
            "invalid_value",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]},
            400,
            "tools",
            "unsupported_parameter",
        ),
    ],
)
def test_faults_are_told_in_openais_form(
    kind: Kind, body: Any, status: int, param: str | None, code: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as told:
        read_call(kind, raw, SERVED)
    error = told.value.body()["error"]
    assert (told.value.status, error["param"], error["code"]) == (status, param, code)
    assert error["message"]


HUGE = (2**31, 2**63, 2**64, -(2**63) - 1, 2**80, -(2**80), 10**400)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(HUGE)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["model", "prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop",
     "logprobs", "echo", "stream", "stream_options", "min_tokens", "stop_token_ids", "n", "tools"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, JSON), st.sampled_from(["completion", "chat"]))
def test_no_body_does_more_than_be_refused(body: dict[str, Any], kind: Kind) -> None:
    try:
        call = read_call(kind, json.dumps(body).encode(), SERVED)
    except ApiError as error:
        told = error
    else:
        told = None
    if told is not None:
        assert 400 <= told.status < 500
        return
    for prompt, most in zip(call.prompts, call.max_new_tokens, strict=True):
        assert 1 <= len(prompt) <= len(prompt) + max(1, most) <= SERVED.max_tokens
    numbers = (call.top_k, call.min_new_tokens, call.num_logprobs or 0, *call.stop_ids)
    assert all(0 <= number < 2**31 for number in numbers)
    assert -(2**63) <= (call.seed or 0) < 2**63


def test_a_character_of_two_escapes_passes() -> None:
    call = read_call("completion", b'{"prompt": "\\ud83d\\ude00"}', SERVED)
    assert bytes(call.prompts[0]).decode() == "\N{GRINNING FACE}"


def test_a_top_k_of_more_than_there_are_is_all() -> None:
    assert completion(top_k=2**31 - 1).top_k == 256


def test_without_chunks_a_text_must_fit_a_step() -> None:
    whole = describe(serving_document(chunked_prefill=False), num_blocks=512, max_queue=0)
    assert whole.max_tokens == 128
    assert describe(serving_document(), num_blocks=512, max_queue=0).max_tokens == 512
