"""The fields of a request's body, each read once and checked; what is not understood is refused."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from twofold.runtime.serve.api.errors import ApiError


class Fields:
    """A body, and which of its fields were read."""

    def __init__(self, body: bytes) -> None:
        try:
            mapping = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ApiError(f"the body is not JSON: {error}", code="invalid_json") from error
        if not isinstance(mapping, dict):
            raise ApiError("the body is not a JSON object", code="invalid_json")
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

    def integer(self, name: str, least: int, most: int | None = None) -> int | None:
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(name, "must be a whole number", value)
        if value < least or (most is not None and value > most):
            upper = "" if most is None else f" and at most {most}"
            raise _wrong(name, f"must be at least {least}{upper}", value)
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


def _wrong(name: str, rule: str, value: Any) -> ApiError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ApiError(f"'{name}' {rule}, not {shown}", param=name, code="invalid_value")


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")
