"""Words that are chosen from a list, refused with the nearest where they are not on it; numbers
with units, refused with the option they were given to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from twofold.errors import InputError

if TYPE_CHECKING:
    from twofold.catalog import Term
    from twofold.plan import Precision
    from twofold.search.options import Objective

Value = TypeVar("Value")


def choose(word: str, choices: Sequence[str], *, at: str) -> str:
    """The choice that `word` is, whatever its letter case."""
    if word.strip().lower() in choices:
        return word.strip().lower()
    near = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.5)
    raise InputError(
        f"'{word}' is none of {', '.join(choices)}",
        at=at,
        help=f"perhaps '{near[0]}' is meant" if near else "use one of them",
    )


def objective_of(word: str) -> Objective:
    return cast("Objective", choose(word, ("time", "cost", "energy", "carbon"), at="--objective"))


def term_of(word: str) -> Term:
    terms = ("on-demand", "spot", "reserved", "capacity-block")
    return cast("Term", choose(word, terms, at="--term"))


def precisions_of(words: str) -> tuple[Precision, ...]:
    from twofold.perf.plans import PRECISIONS

    chosen = [choose(word, PRECISIONS, at="--precision") for word in words.split(",")]
    return cast("tuple[Precision, ...]", tuple(dict.fromkeys(chosen)))


def read_option(text: str, read: Callable[[str], Value], *, at: str) -> Value:
    """The value of an option; what is wrong with it is said to be at the option."""
    try:
        return read(text)
    except InputError as error:
        raise InputError(error.what, at=at, help=error.help) from error


def read_limit(text: str | None, read: Callable[[str], Value], *, at: str) -> Value | None:
    """The value of an option that may be left out."""
    return None if text is None else read_option(text, read, at=at)
