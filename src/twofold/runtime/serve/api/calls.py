"""A request's body into what the engine is asked: prompts, sampling, when to stop, what to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from twofold.errors import InputError
from twofold.runtime.serve.api.errors import ApiError
from twofold.runtime.serve.api.fields import Fields
from twofold.runtime.serve.api.served import Served
from twofold.runtime.serve.chat import Messages

Kind = Literal["completion", "chat"]

MOST_LOGPROBS = 20
MOST_PROMPTS = 128
MOST_STOPS = 16
_GREEDY_BELOW = 1e-5
"""A temperature so low is greedy, as in vLLM: dividing by it would overflow."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "suffix": ("",),
    "min_p": (0,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "parallel_tool_calls": (True, False),
    "top_logprobs": (0,),
    "add_generation_prompt": (True,),
}
"""Fields of the protocol that this server does not serve, with the values that ask for nothing."""

_IGNORED = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request. `stop` are strings; `max_new_tokens` may be 0 with `echo`, which tells
    the prompt again."""

    kind: Kind
    prompts: tuple[tuple[int, ...], ...]
    max_new_tokens: tuple[int, ...]
    min_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    num_logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool
    return_token_ids: bool


def read_call(kind: Kind, body: bytes, served: Served) -> Call:
    """ApiError for whatever is missing, wrong, too long or not served."""
    fields = Fields(body)
    _check_model(fields, served)
    echo = fields.flag("echo") if kind == "completion" else False
    if kind == "completion":
        prompts = _prompts(fields, served)
        wanted = fields.integer("max_tokens", 0 if echo else 1)
        wanted = 16 if wanted is None else wanted
        num_logprobs = fields.integer("logprobs", 0, MOST_LOGPROBS)
    else:
        prompts = (_chat_prompt(fields, served),)
        wanted = fields.integer("max_completion_tokens", 1)
        older = fields.integer("max_tokens", 1)
        wanted = older if wanted is None else wanted
        num_logprobs = _chat_logprobs(fields)
    most = tuple(_max_new_tokens(len(prompt), wanted, served) for prompt in prompts)
    temperature = fields.number("temperature", 0, 2, default=1.0)
    options = fields.value("stream_options")
    call = Call(
        kind=kind,
        prompts=prompts,
        max_new_tokens=most,
        min_new_tokens=_min_new_tokens(fields, most),
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=_top_p(fields),
        top_k=min(max(0, fields.integer("top_k", -1) or 0), served.vocab),
        seed=fields.integer("seed", -(2**63), 2**63 - 1),
        stop=_stops(fields),
        stop_ids=_stop_ids(fields, served),
        num_logprobs=num_logprobs,
        echo=echo,
        stream=fields.flag("stream"),
        include_usage=_include_usage(options),
        return_token_ids=fields.flag("return_token_ids"),
    )
    fields.refuse_rest(_NEUTRAL, _IGNORED)
    if call.min_new_tokens and len(call.stop_ids) == served.vocab:
        raise ApiError(
            f"every token ends the answer, so it cannot have min_tokens {call.min_new_tokens}",
            param="stop_token_ids",
            code="invalid_value",
        )
    return call


def _check_model(fields: Fields, served: Served) -> None:
    """A body without a model means the one there is."""
    if fields.value("model") is None:
        return
    name = fields.text("model")
    if name != served.name:
        raise ApiError(
            f"the model '{name}' is not served here; '{served.name}' is",
            status=404,
            param="model",
            code="model_not_found",
        )


def _prompts(fields: Fields, served: Served) -> tuple[tuple[int, ...], ...]:
    """Text, token ids, or a list of one kind."""
    value = fields.value("prompt")
    many = value if isinstance(value, list) and not _is_ids(value) else [value]
    if not 1 <= len(many) <= MOST_PROMPTS:
        raise ApiError(
            f"{len(many)} prompts: give 1 to {MOST_PROMPTS}", param="prompt", code="invalid_value"
        )
    return tuple(_prompt(one, served) for one in many)


def _is_ids(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)


def _prompt(value: Any, served: Served) -> tuple[int, ...]:
    if isinstance(value, str):
        ids = served.encode(value, special=True)
    elif isinstance(value, list) and _is_ids(value):
        ids = value
    else:
        raise ApiError(
            "'prompt' must be a string, a list of token ids, or a list of either",
            param="prompt",
            code="invalid_value",
        )
    return _checked(ids, served, "prompt")


def _checked(ids: list[int], served: Served, param: str) -> tuple[int, ...]:
    if not ids:
        raise ApiError("the prompt holds no token", param=param, code="invalid_value")
    if not 0 <= min(ids) <= max(ids) < served.vocab:
        raise ApiError(
            f"token ids are from 0 to {served.vocab - 1}", param=param, code="invalid_value"
        )
    return tuple(ids)


def _chat_prompt(fields: Fields, served: Served) -> tuple[int, ...]:
    messages = fields.value("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(
            "'messages' must be a list of messages", param="messages", code="invalid_value"
        )
    plain = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    return _checked(_rendered(plain, served), served, "messages")


def _rendered(messages: Messages, served: Served) -> list[int]:
    if served.template is None:
        raise ApiError(
            f"'{served.name}' has no chat template: use /v1/completions",
            param="messages",
            code="no_chat_template",
        )
    try:
        return served.encode(served.template(messages), special=False)
    except InputError as error:
        raise ApiError(error.what, param="messages", code="invalid_value") from error


def _message(message: Any, param: str) -> dict[str, str]:
    """Role and text; content in parts must be text alone."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ApiError("a message needs a role and content", param=param, code="invalid_value")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {} for part in content]
        if not all(p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts):
            raise ApiError("only text is served", param=f"{param}.content", code="invalid_value")
        content = "".join(part["text"] for part in parts)
    if not isinstance(content, str):
        raise ApiError("content must be text", param=f"{param}.content", code="invalid_value")
    return {"role": message["role"], "content": content}


def _chat_logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs")
    number = fields.integer("top_logprobs", 0, MOST_LOGPROBS)
    if number and not wanted:
        raise ApiError(
            "'top_logprobs' needs 'logprobs'", param="top_logprobs", code="invalid_value"
        )
    return (number or 0) if wanted else None


def _max_new_tokens(prompt_tokens: int, wanted: int | None, served: Served) -> int:
    """As asked, or all that is left; a prompt and its answer must fit the context and the cache."""
    left = served.max_tokens - prompt_tokens
    if left < max(1, wanted or 1):
        asked = "" if wanted is None else f" and {wanted} more"
        raise ApiError(
            f"the context is {served.max_tokens} tokens, and the prompt has {prompt_tokens}{asked}",
            param="prompt",
            code="context_length_exceeded",
        )
    return left if wanted is None else wanted


def _min_new_tokens(fields: Fields, most: tuple[int, ...]) -> int:
    least = fields.integer("min_tokens", 0) or 0
    if least > min(most):
        raise ApiError(
            f"min_tokens {least} is more than max_tokens {min(most)}",
            param="min_tokens",
            code="invalid_value",
        )
    return least


def _top_p(fields: Fields) -> float:
    top_p = fields.number("top_p", 0, 1, default=1.0)
    if top_p == 0:
        raise ApiError("'top_p' must be more than 0", param="top_p", code="invalid_value")
    return top_p


def _stops(fields: Fields) -> tuple[str, ...]:
    stops = fields.texts("stop")
    if len(stops) > MOST_STOPS:
        raise ApiError(f"'stop' takes at most {MOST_STOPS}", param="stop", code="invalid_value")
    return stops


def _stop_ids(fields: Fields, served: Served) -> frozenset[int]:
    """The model's end tokens unless `ignore_eos`, and `stop_token_ids`."""
    own = fields.value("stop_token_ids")
    if own is not None and (not isinstance(own, list) or (own and not _is_ids(own))):
        raise ApiError(
            "'stop_token_ids' must be a list of token ids",
            param="stop_token_ids",
            code="invalid_value",
        )
    end_ids = frozenset[int]() if fields.flag("ignore_eos") else served.end_ids
    return end_ids | frozenset(id for id in own or () if 0 <= id < served.vocab)


def _include_usage(options: Any) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise ApiError(
            "'stream_options' must be an object such as {\"include_usage\": true}",
            param="stream_options",
            code="invalid_value",
        )
    if options.get("continuous_usage_stats"):
        raise ApiError(
            "usage is told once, at the end",
            param="stream_options.continuous_usage_stats",
            code="unsupported_parameter",
        )
    return bool(options.get("include_usage", False))
