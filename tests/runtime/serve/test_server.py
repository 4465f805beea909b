"""The server as its clients meet it: real processes, real sockets."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
import httpx

from tests.runtime.serve.documents import serving_document
from tests.runtime.serve.servers import Running, serving, start, start_in_vain

pytestmark = pytest.mark.slow
LONG = {"prompt": "x", "max_tokens": 480, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two sequences at a time and two that wait; a cache that two long answers overfill."""
    document = serving_document(max_num_seqs=2, num_blocks=48)
    with serving(document, tmp_path_factory.mktemp("serve"), "--max-queue", "2") as server:
        yield server


def post(running: Running, body: dict[str, Any], path: str = "/v1/completions") -> Any:
    return httpx.post(running.url + path, json=body, timeout=60)


def events(running: Running, body: dict[str, Any], path: str = "/v1/completions") -> list[Any]:
    found = []
    with httpx.stream("POST", running.url + path, json=body | {"stream": True}, timeout=60) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        for line in got.iter_lines():
            if line:
                assert line.startswith("data: ")
                found.append(line.removeprefix("data: "))
    assert found[-1] == "[DONE]"
    return [json.loads(event) for event in found[:-1]]


def metric(running: Running, name: str) -> float:
    text = httpx.get(running.url + "/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


def until(condition: Any, timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.02)


def test_a_stream_says_the_same_as_a_whole_answer(running: Running) -> None:
    body = {"prompt": "Hello", "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    whole = post(running, body | {"return_token_ids": True, "logprobs": 2}).json()
    choice = whole["choices"][0]
    assert whole["usage"]["completion_tokens"] == 24
    assert whole["usage"]["prompt_tokens"] == 5
    assert (choice["finish_reason"], len(choice["token_ids"])) == ("length", 24)
    assert len(choice["logprobs"]["token_logprobs"]) == 24
    assert all(len(top) == 2 for top in choice["logprobs"]["top_logprobs"])
    chunks = events(
        running, body | {"return_token_ids": True, "stream_options": {"include_usage": True}}
    )
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 24
    parts = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert len(parts) == 24
    assert "".join(part["text"] for part in parts) == choice["text"]
    assert [id for part in parts for id in part["token_ids"]] == choice["token_ids"]
    assert [part["finish_reason"] for part in parts] == [None] * 23 + ["length"]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


def test_a_chat_streams_deltas(running: Running) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0}
    path = "/v1/chat/completions"
    whole = post(running, body, path).json()
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"]["role"] == "assistant"
    chunks = events(running, body, path)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]


def test_a_prompt_is_scored_without_an_answer(running: Running) -> None:
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 0, "echo": True, "logprobs": 1}
    answer = post(running, body | {"return_token_ids": True}).json()
    choice = answer["choices"][0]
    assert choice["token_ids"] == [5, 6, 7, 8]
    own = choice["logprobs"]["token_logprobs"]
    assert own[0] is None
    assert all(value < 0 for value in own[1:])
    assert len(own) == 4
    assert answer["usage"]["completion_tokens"] == 0


def test_several_prompts_are_several_choices(running: Running) -> None:
    body = {"prompt": ["one", "two"], "max_tokens": 4, "temperature": 0}
    both = post(running, body).json()["choices"]
    alone = [
        post(running, body | {"prompt": prompt}).json()["choices"][0]["text"]
        for prompt in ("one", "two")
    ]
    assert [choice["text"] for choice in both] == alone
    assert [choice["index"] for choice in both] == [0, 1]


def test_a_known_beginning_is_told(running: Running) -> None:
    body = {"prompt": "the same long beginning of two requests " * 2, "max_tokens": 2}
    post(running, body)
    usage = post(running, body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 64 + 0
    assert metric(running, "vllm:prefix_cache_hits_total") >= 64


def test_models_and_health(running: Running) -> None:
    model = httpx.get(running.url + "/v1/models").json()["data"][0]
    assert (model["id"], model["max_model_len"], model["vocab_size"]) == ("bytes", 512, 256)
    assert httpx.get(running.url + "/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/completions", 405), ("POST", "/v2/nothing", 404), ("POST", "/v1/models", 405)],
)
def test_other_routes_are_refused_in_openais_form(
    running: Running, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, running.url + path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_malformed_body_is_refused(running: Running) -> None:
    answer = httpx.post(running.url + "/v1/completions", content=b'{"prompt": ')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def strictly(word: str) -> float:
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize(
    "body",
    [
        {"top_k": 2**80},
        {"max_tokens": 2**80},
        {"min_tokens": 2**80},
        {"seed": 2**80},
        {"logprobs": 2**80},
        {"stop_token_ids": [2**80], "n": 2**80},
        {"prompt": [2**80]},
        {"stop_token_ids": list(range(256)), "min_tokens": 2},
        {"prompt": "a" * 2**22},
        {"prompt": [5] * 2**20},
    ],
)
def test_no_body_ends_the_server(running: Running, body: dict[str, Any]) -> None:
    answer = post(running, {"prompt": "a", "max_tokens": 2} | body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in body
    assert httpx.get(running.url + "/health").status_code == 200
    assert post(running, {"prompt": "a", "max_tokens": 2}).status_code == 200


def test_half_a_character_is_refused(running: Running) -> None:
    body = rb'{"prompt": "\ud800"}'
    answer = httpx.post(running.url + "/v1/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_a_body_that_is_too_large_is_refused(running: Running) -> None:
    answer = httpx.post(running.url + "/v1/completions", content=b" " * (2**25 + 1), timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_tokens_that_cannot_come_are_numbers(running: Running, stream: bool) -> None:
    barred = [token for token in range(256) if token not in (65, 66)]
    body = {
        "prompt": "a", "max_tokens": 3, "min_tokens": 3, "stop_token_ids": barred, "logprobs": 4,
        "stream": stream,
    }  # fmt: skip
    said = post(running, body).text
    bodies = [
        json.loads(line.removeprefix("data: "), parse_constant=strictly)
        for line in said.splitlines()
        if line and line != "data: [DONE]"
    ]
    scores = [one["choices"][0]["logprobs"] for one in bodies]
    tops = [top for score in scores for top in score["top_logprobs"]]
    assert len(tops) == 3
    assert all(set(top) >= {"A", "B"} for top in tops)
    assert all(-9999 <= value <= 0 for top in tops for value in top.values())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_its_stop_string(running: Running, stream: bool) -> None:
    body = {"prompt": "stop", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    text = post(running, body).json()["choices"][0]["text"]
    stop = text[6:9]
    body |= {"stop": ["never comes", stop]}
    if stream:
        choices = [chunk["choices"][0] for chunk in events(running, body)]
        said, finish = "".join(c["text"] for c in choices), choices[-1]["finish_reason"]
    else:
        choice = post(running, body).json()["choices"][0]
        said, finish = choice["text"], choice["finish_reason"]
    assert (said, finish) == (text[: text.index(stop)], "stop")
    until(lambda: metric(running, "vllm:num_requests_running") == 0)
    assert metric(running, "vllm:kv_cache_usage_perc") == 0


def test_a_client_that_vanishes_is_cancelled(running: Running) -> None:
    before = metric(running, "twofold:requests_cancelled_total")
    with httpx.stream("POST", running.url + "/v1/completions", json=LONG | {"stream": True}) as got:
        next(got.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(running.url + "/v1/completions", json=LONG, timeout=0.15)
    until(lambda: metric(running, "twofold:requests_cancelled_total") == before + 2)
    until(lambda: metric(running, "vllm:num_requests_running") == 0)
    assert metric(running, "vllm:kv_cache_usage_perc") == 0


def test_a_full_queue_says_when_to_come_again_and_a_full_cache_changes_no_token(
    running: Running,
) -> None:
    alone = post(running, LONG).json()["choices"][0]["text"]
    answers: list[Any] = []

    def ask() -> None:
        answers.append(post(running, LONG))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer.status_code == 429]
    answered = [answer for answer in answers if answer.status_code == 200]
    assert len(refused) + len(answered) == 12
    assert len(answered) >= 4
    assert refused
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
    assert {answer.json()["choices"][0]["text"] for answer in answered} == {alone}
    assert metric(running, "vllm:num_preemptions_total") > 0


def test_metrics_count_what_was_served(running: Running) -> None:
    before = metric(running, "vllm:generation_tokens_total")
    post(running, {"prompt": "count", "max_tokens": 7, "ignore_eos": True})
    assert metric(running, "vllm:generation_tokens_total") == before + 7
    for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency"):
        assert metric(running, f"vllm:{name}_seconds_count") > 0


def test_a_key_is_needed_where_one_is_set_and_sigterm_drains(tmp_path: Path) -> None:
    with serving(serving_document(), tmp_path, api_key="secret") as server:
        assert post(server, LONG).status_code == 401
        assert post(server, LONG).json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(server.url + "/health").status_code == 200
        key = {"Authorization": "Bearer secret"}
        tokens = 0
        body = LONG | {"stream": True, "return_token_ids": True}
        with httpx.stream(
            "POST", server.url + "/v1/completions", json=body, headers=key, timeout=60
        ) as got:
            lines = got.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            for line in lines:
                if line.startswith("data: {"):
                    tokens += len(json.loads(line[6:])["choices"][0]["token_ids"])
        assert tokens == 479
        assert server.process.wait(timeout=30) == 0


def test_ctrl_c_ends_it_with_130(tmp_path: Path) -> None:
    with serving(serving_document(), tmp_path) as server:
        assert server.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_an_empty_key_is_refused(key: str, tmp_path: Path) -> None:
    ended = start_in_vain(tmp_path, serving_document(), api_key=key)
    said = json.loads(ended.stderr.splitlines()[-1])
    assert ended.returncode == said["exit_code"] == 2
    assert said["at"] == "TWOFOLD_API_KEY"
    assert said["help"]
    assert ended.stdout == ""


def test_sigterm_while_it_loads_ends_it_with_0(tmp_path: Path) -> None:
    process = start(tmp_path, serving_document())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: children.read_text().split())
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_failure_of_the_engine_is_told_and_ends_the_server_with_3(tmp_path: Path) -> None:
    """Its log of steps cannot be written."""
    process = start(tmp_path, serving_document(), "--step-log", "/dev/full")
    assert process.stdout is not None
    running = Running(json.loads(process.stdout.readline())["url"], process)
    with httpx.stream(
        "POST", running.url + "/v1/completions", json=LONG | {"stream": True}, timeout=60
    ) as got:
        told = [line for line in got.iter_lines() if line]
    assert json.loads(told[-1].removeprefix("data: "))["error"]["code"] == "engine_stopped"
    errors = process.communicate(timeout=60)[1]
    said = json.loads(errors.splitlines()[-1])
    assert process.returncode == said["exit_code"] == 3
    assert said["error"].startswith("the engine failed: OSError")
    assert "Traceback" in errors


def test_a_plan_that_cannot_be_served_is_refused_before_it_listens(tmp_path: Path) -> None:
    ended = start_in_vain(tmp_path, serving_document(tensor_degree=2))
    said = json.loads(ended.stderr.splitlines()[-1])
    assert ended.returncode == said["exit_code"] == 2
    assert said["at"] == "plan, tensor_degree"
    assert ended.stdout == ""
