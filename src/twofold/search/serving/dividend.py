"""What a speed-up can be spent on: the same answers sooner, longer thinking in the same wait, or
less money. What longer thinking is worth in right answers is never assumed."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.search.serving.options import ServingOption


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingDividend:
    """Of a plan against another, for the median request of the same load.

    `wait_s` is how long the other takes, `sooner_s` how long the plan does; `tokens` come of the
    other in that wait and `more_tokens` of the plan; dollars are of a million output tokens, each
    at the load it carries.
    """

    against: str
    wait_s: float
    sooner_s: float
    tokens: float
    more_tokens: float
    usd: float | None
    less_usd: float | None


def thinking_tokens(wait_s: float, ttft_s: float, tpot_s: float) -> float:
    """N = (L - TTFT) / TPOT, and the first one: tokens that come within a wait of L."""
    return max(0.0, 1.0 + (wait_s - ttft_s) / tpot_s) if wait_s >= ttft_s else 0.0


def thinking_dividend(
    best: ServingOption, other: ServingOption, asked: float | None
) -> ThinkingDividend | None:
    """None where answers have a single token, or no wait that could be compared: the other cannot
    keep up with the load."""
    mine, theirs = best.outcome, other.outcome
    if mine.tpot_s is None or theirs.tpot_s is None or not other.carried:
        return None
    mean_tokens = theirs.output_tokens / theirs.num_requests
    wait_s = theirs.ttft_s.p50 + (mean_tokens - 1.0) * theirs.tpot_s.p50
    return ThinkingDividend(
        against=other.role,
        wait_s=wait_s,
        sooner_s=mine.ttft_s.p50 + (mean_tokens - 1.0) * mine.tpot_s.p50,
        tokens=mean_tokens,
        more_tokens=thinking_tokens(wait_s, mine.ttft_s.p50, mine.tpot_s.p50),
        usd=_usd(other, asked),
        less_usd=_usd(best, asked),
    )


def _usd(option: ServingOption, asked: float | None) -> float | None:
    """Of a million tokens at the load it carries: the same rent for more of them."""
    usd = option.outcome.usd_per_million_output_tokens()
    if usd is None or asked is None or not option.carried:
        return usd
    return usd * asked / option.carried
