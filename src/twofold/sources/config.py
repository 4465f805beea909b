"""A `config.json` read with care: keys that must be there, of the type they must have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from twofold.errors import InputError

_MISSING = object()


class Config:
    """The keys of one config, or of a nested part of it; every fault names its key."""

    def __init__(self, mapping: Any, *, at: str) -> None:
        if not isinstance(mapping, Mapping):
            raise InputError("it is not a table of keys", at=at, help="check that it is a config")
        self.mapping = mapping
        self.at = at

    def has(self, key: str) -> bool:
        return self.mapping.get(key) is not None

    def part(self, key: str) -> Config:
        return Config(self._get(key), at=f"{self.at}, {key}")

    def count(self, *keys: str, default: int | None = None) -> int:
        """A positive number of things, under the first of `keys` that is there."""
        for key in keys:
            if self.has(key):
                return self._count(key, least=1)
        if default is not None:
            return default
        raise self._missing(keys)

    def optional(self, key: str) -> int | None:
        """A positive number, or None where the key is absent, null or zero."""
        return (self._count(key, least=0) or None) if self.has(key) else None

    def number(self, key: str, default: int) -> int:
        """A number that may be zero."""
        return self._count(key, least=0) if self.has(key) else default

    def ratio(self, key: str, default: float) -> float:
        value = self.mapping.get(key)
        if value is None:
            return default
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or value <= 0:
            raise self._refuse(key, f"{key} is {value!r}", "it must be a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.mapping.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._refuse(key, f"{key} is {value!r}", "it must be true or false")
        return value

    def word(self, *keys: str, default: str | None = None) -> str:
        for key in keys:
            if self.has(key):
                value = self.mapping[key]
                if not isinstance(value, str):
                    raise self._refuse(key, f"{key} is {value!r}", "it must be a text")
                return value
        if default is not None:
            return default
        raise self._missing(keys)

    def words(self, key: str) -> tuple[str, ...]:
        value = self.mapping.get(key) or ()
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise self._refuse(key, f"{key} is {value!r}", "it must be a list of texts")
        return tuple(value)

    def counts(self, key: str) -> tuple[int, ...]:
        value = self.mapping.get(key) or ()
        if not isinstance(value, list | tuple) or not all(type(v) is int for v in value):
            raise self._refuse(key, f"{key} is {value!r}", "it must be a list of numbers")
        return tuple(value)

    def unsupported(self, key: str, help: str) -> InputError:
        value = self.mapping.get(key)
        return self._refuse(key, f"{key} = {value!r} is not supported", help)

    def _get(self, key: str) -> Any:
        value = self.mapping.get(key, _MISSING)
        if value is _MISSING or value is None:
            raise self._missing((key,))
        return value

    def _count(self, key: str, *, least: int) -> int:
        value = self.mapping[key]
        if type(value) is not int or value < least:
            raise self._refuse(
                key, f"{key} is {value!r}", f"it must be a whole number of at least {least}"
            )
        return value

    def _missing(self, keys: tuple[str, ...]) -> InputError:
        return self._refuse(
            keys[0],
            f"the key '{keys[0]}' is missing",
            "use the whole config.json of the model" + (f" (or {keys[1]})" if keys[1:] else ""),
        )

    def _refuse(self, key: str, what: str, help: str) -> InputError:
        return InputError(what, at=f"{self.at}, {key}", help=help)
