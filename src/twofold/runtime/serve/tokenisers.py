"""Text to token ids and back: Hugging Face's `tokenizer.json`, or bytes."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Protocol

from twofold.errors import InputError
from twofold.model import Model
from twofold.runtime.serve.folder import end_ids

BYTES = 256
DOCUMENT_END = 0
"""The byte between documents in the text that Twofold trains on."""


class TextStream(Protocol):
    """Text of tokens that come one by one; what is not a whole character yet is held back."""

    def add(self, token: int) -> str: ...

    def finish(self) -> str:
        """What was held back."""
        ...


class Tokeniser(Protocol):
    @property
    def end_ids(self) -> frozenset[int]: ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """`special`: with the tokens that a text begins with, where the model has such."""
        ...

    def piece(self, token: int) -> str:
        """One token as it is shown alone; no two are shown alike."""
        ...

    def stream(self) -> TextStream: ...


class ByteTokeniser:
    """A token is a byte of UTF-8; ids from 256 on stand for nothing."""

    end_ids = frozenset({DOCUMENT_END})

    def encode(self, text: str, *, special: bool) -> list[int]:
        return list(text.encode("utf-8", errors="replace"))

    def piece(self, token: int) -> str:
        if token >= BYTES:
            return f"token:{token}"
        return chr(token) if token < 128 else f"bytes:\\x{token:02x}"

    def stream(self) -> TextStream:
        return _ByteStream()


class _ByteStream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        if token >= BYTES:
            return self._decoder.decode(b"", True) + "\N{REPLACEMENT CHARACTER}"
        return self._decoder.decode(bytes((token,)))

    def finish(self) -> str:
        return self._decoder.decode(b"", True)


class HuggingFaceTokeniser:
    def __init__(self, tokeniser: Any, end_ids: frozenset[int]) -> None:
        self._tokeniser = tokeniser
        self.end_ids = end_ids

    def encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokeniser.encode(text, add_special_tokens=special).ids
        return ids

    def piece(self, token: int) -> str:
        return str(self._tokeniser.id_to_token(token) or f"token:{token}")

    def stream(self) -> TextStream:
        return _DecodedStream(self._tokeniser)


class _DecodedStream:
    """A token's text depends on those before it, so some are decoded again with each; text is
    given out once it no longer ends in half a character."""

    def __init__(self, tokeniser: Any) -> None:
        self._tokeniser = tokeniser
        self._ids: list[int] = []
        self._given = ""
        self._held_tokens = 0

    def add(self, token: int) -> str:
        self._ids.append(token)
        self._held_tokens += 1
        text = self._decode()
        if text.endswith("\N{REPLACEMENT CHARACTER}") and self._held_tokens < _CONTEXT_TOKENS:
            return ""
        self._held_tokens = 0
        new = text[len(self._given) :]
        if new:
            self._ids = self._ids[-_CONTEXT_TOKENS:]
            self._given = self._decode()
        return new

    def finish(self) -> str:
        return self._decode()[len(self._given) :]

    def _decode(self) -> str:
        text: str = self._tokeniser.decode(self._ids, skip_special_tokens=True)
        return text


_CONTEXT_TOKENS = 4
"""Tokens decoded again with the next one: enough for the longest character in bytes."""


def find_tokeniser(weights: str, model: Model) -> Tokeniser:
    """That of the folder; bytes for a model of 256 tokens, and for random weights."""
    path = Path(weights) / "tokenizer.json"
    if weights != "random" and path.is_file():
        from tokenizers import Tokenizer

        try:
            return HuggingFaceTokeniser(Tokenizer.from_file(str(path)), end_ids(Path(weights)))
        except Exception as error:  # the library raises no narrower kind
            raise InputError(
                f"the tokeniser cannot be read: {error}", at=str(path), help="fetch the file again"
            ) from error
    if model.vocab == BYTES or (weights == "random" and model.vocab > BYTES):
        return ByteTokeniser()
    raise InputError(
        f"there is no tokeniser for the {model.vocab} tokens of '{model.name}'",
        at=str(path),
        help="put the tokenizer.json that the text was encoded with beside the weights",
    )
