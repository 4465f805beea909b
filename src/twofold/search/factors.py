"""Whole numbers as products."""

from __future__ import annotations


def divisors(number: int) -> list[int]:
    """All of them, rising."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def factorisations(devices: int) -> list[tuple[int, int, int, int]]:
    """Every (data, tensor, context, pipeline) whose product they are; the plain ones first."""
    return [
        (devices // (t * c * p), t, c, p)
        for p in divisors(devices)
        for c in divisors(devices // p)
        for t in divisors(devices // (p * c))
    ]


def odd_part(number: int) -> int:
    """What is left of a number without its factors of two."""
    return number // (number & -number)
