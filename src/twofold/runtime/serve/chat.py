"""Chat messages into one prompt, by the model's own template (Jinja, in a sandbox)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from twofold.document import read_text
from twofold.errors import InputError
from twofold.runtime.serve.folder import read_mapping

Messages = list[dict[str, str]]
Template = Callable[[Messages], str]

PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""For models of bytes, which were trained on plain text."""


def find_template(weights: str, *, plain: bool) -> Template | None:
    """The folder's; with `plain` a simple one where it has none, else None."""
    folder = Path(weights)
    config = {} if weights == "random" else read_mapping(folder / "tokenizer_config.json") or {}
    source = config.get("chat_template")
    own = folder / "chat_template.jinja"
    if weights != "random" and own.is_file():
        source = read_text(own)
    if isinstance(source, list):
        named = [entry for entry in source if isinstance(entry, dict)]
        source = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if source is None:
        if not plain:
            return None
        source = PLAIN
    at = str(own if own.is_file() else folder / "tokenizer_config.json")
    if not isinstance(source, str):
        raise InputError("the chat template is not text", at=at, help="fetch the file again")
    return _compile(source, config, at=at)


def _compile(source: str, config: dict[str, Any], *, at: str) -> Template:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    special = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, str | dict)
    }
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise InputError(
            f"the chat template is not Jinja: {error}", at=at, help="fetch the file again"
        ) from error

    def render(messages: Messages) -> str:
        try:
            return template.render(messages=messages, add_generation_prompt=True, **special)
        except Exception as error:  # the template is a program of its own
            raise InputError(
                f"the chat template refuses these messages: {error}",
                at="messages",
                help="change their roles or order",
            ) from error

    return render


def _refuse(message: str) -> str:
    from jinja2 import TemplateError

    raise TemplateError(message)
