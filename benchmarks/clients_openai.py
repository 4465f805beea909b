"""The openai package against a server, in the environment that has it; `clients.py` runs this.

    python clients_openai.py URL KEY

Prints one JSON object: what was asked, and whether it was so.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai
from openai import OpenAI

PROMPT = "def main(self, name):\n    return"
MESSAGES: list[Any] = [{"role": "user", "content": "import os\n"}]


def main() -> None:
    url, key = sys.argv[1], sys.argv[2]
    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    model = client.models.list().data[0].id
    print(json.dumps({**_answers(client, model), **_refusals(url, key, client, model)}))


def _answers(client: OpenAI, model: str) -> dict[str, bool]:
    """Whole and streamed answers are the same greedy text, with the same usage."""
    ask: dict[str, Any] = {"model": model, "max_tokens": 24, "temperature": 0}
    streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    whole = client.completions.create(prompt=PROMPT, **ask)
    parts = list(client.completions.create(prompt=PROMPT, **ask, **streamed))
    said = client.chat.completions.create(messages=MESSAGES, **ask)
    bits = list(client.chat.completions.create(messages=MESSAGES, **ask, **streamed))
    text = "".join(choice.text for part in parts for choice in part.choices)
    chat = "".join(choice.delta.content or "" for bit in bits for choice in bit.choices)
    scored = client.completions.create(prompt=PROMPT, logprobs=2, **ask)
    logprobs = scored.choices[0].logprobs
    two = client.completions.create(prompt=[PROMPT, PROMPT], **ask)
    return {
        "completion": whole.usage is not None and whole.usage.completion_tokens == 24,
        "completion streamed: the same text": text == whole.choices[0].text != "",
        "completion streamed: the same usage": parts[-1].usage == whole.usage,
        "chat": said.choices[0].finish_reason == "length" and said.usage is not None,
        "chat streamed: the same text": chat == said.choices[0].message.content != "",
        "chat streamed: the same usage": bits[-1].usage == said.usage,
        "logprobs of every token": logprobs is not None and len(logprobs.top_logprobs or []) == 24,
        "a list of prompts": [choice.text for choice in two.choices] == 2 * [text],
        "a stream left early": _left_early(client, ask | {"max_tokens": 400, "stream": True}),
    }


def _left_early(client: OpenAI, ask: dict[str, Any]) -> bool:
    """The next request is answered as if the stream had not been."""
    with client.completions.create(prompt=PROMPT, **ask) as stream:
        next(iter(stream))
    return bool(client.completions.create(prompt=PROMPT, model=ask["model"]).choices[0].text)


def _refusals(url: str, key: str, client: OpenAI, model: str) -> dict[str, bool]:
    """Errors come as the package's own exceptions, with the server's code and param."""
    stranger = OpenAI(base_url=f"{url}/v1", api_key=key + "x", max_retries=0)
    ask: dict[str, Any] = {"model": model, "prompt": PROMPT}
    cases: list[tuple[str, OpenAI, dict[str, Any], type[openai.APIStatusError], str]] = [
        ("wrong key", stranger, ask, openai.AuthenticationError, "invalid_api_key"),
        ("no such model", client, ask | {"model": "x"}, openai.NotFoundError, "model_not_found"),
        ("n = 2", client, ask | {"n": 2}, openai.BadRequestError, "unsupported_parameter"),
        ("a wrong value", client, ask | {"temperature": 9}, openai.BadRequestError,
         "invalid_value"),
        ("too long", client, ask | {"max_tokens": 10**6}, openai.BadRequestError,
         "context_length_exceeded"),
    ]  # fmt: skip
    found = {}
    for name, who, fields, kind, code in cases:
        try:
            who.completions.create(**fields)
            found[f"refused: {name}"] = False
        except openai.APIStatusError as error:
            found[f"refused: {name}"] = type(error) is kind and error.code == code
    return found


if __name__ == "__main__":
    main()
