"""The fields of a request's body, each read once and checked; what is not understood is refused."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from twofold.runtime.serve.api.errors import ApiError

MOST_INTEGER = 2**31 - 1
"""More than any count of tokens, and safe in the tensors of every device."""
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


class Fields:
    """A body, and which of its fields were read."""

    def __init__(self, body: bytes) -> None:
        try:
            mapping = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ApiError(f"the body is not JSON: {error}", code="invalid_json") from error
        if not isinstance(mapping, dict):
            raise ApiError("the body is not a JSON object", code="invalid_json")
        if _HALF_CHARACTER.search(body):
            _refuse_half_characters(mapping)
        self.mapping: dict[str, Any] = mapping
        self._known: set[str] = set()

    def value(self, name: str) -> Any:
        """Whatever it is; None where it is absent or null."""
        self._known.add(name)
        return self.mapping.get(name)

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise _wrong(name, "must be a string", value)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong(name, "must be true or false", value)
        return value

    def integer(self, name: str, least: int, most: int = MOST_INTEGER) -> int | None:
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(name, "must be a whole number", value)
        if not least <= value <= most:
            raise _wrong(name, f"must be from {least} to {most}", value)
        return value

    def number(self, name: str, least: float, most: float, default: float) -> float:
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(name, "must be a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not least <= number <= most:
            raise _wrong(name, f"must be from {least:g} to {most:g}", value)
        return number

    def texts(self, name: str) -> tuple[str, ...]:
        """A string or a list of them, none empty."""
        value = self.value(name)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
            raise _wrong(name, "must be a string that is not empty, or a list of such", value)
        return tuple(values)

    def refuse_rest(self, neutral: Mapping[str, tuple[Any, ...]], ignored: frozenset[str]) -> None:
        """Fields that ask for nothing are let pass: null, at a `neutral` value, or in `ignored`
        as they change no token. Of the others the first is refused by name."""
        for name, value in self.mapping.items():
            if name in self._known or name in ignored or value is None:
                continue
            if name in neutral:
                if value in neutral[name]:
                    continue
                raise ApiError(
                    f"'{name}' is not supported by this server: leave it out",
                    param=name,
                    code="unsupported_parameter",
                )
            near = difflib.get_close_matches(name, self._known, n=1)
            raise ApiError(
                f"there is no field '{name}'" + (f"; perhaps '{near[0]}' is meant" if near else ""),
                param=name,
                code="unknown_parameter",
            )


def _refuse_half_characters(mapping: dict[str, Any]) -> None:
    """Two escapes such as \\ud83d and \\ude00 are one character, and one alone is none."""
    for name, value in mapping.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            shown = ascii(name)[1:-1]
            raise ApiError(
                f"'{shown}' holds half a character, {error.object[error.start]!a}",
                param=shown,
                code="invalid_value",
            ) from error


def _wrong(name: str, rule: str, value: Any) -> ApiError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ApiError(f"'{name}' {rule}, not {shown}", param=name, code="invalid_value")


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")
