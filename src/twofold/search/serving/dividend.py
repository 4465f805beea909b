"""What a speed-up can be spent on: the same answers sooner, longer thinking in the same wait, or
less money. What longer thinking is worth in right answers is never assumed."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.search.serving.options import ServingOption
from twofold.search.serving.question import ServingQuestion, is_throughput
from twofold.search.serving.ranking import asked_load
from twofold.search.serving.trial import try_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingDividend:
    """Of a plan against another, for the median request of the same `load` (requests a second, or
    users; None: all that are there).

    `wait_s` is how long the other takes, `sooner_s` how long the plan does; `tokens` come of the
    other in that wait and `more_tokens` of the plan. Dollars are of a million output tokens, each
    at the load it carries; None where a price is unknown, or nothing is carried.
    """

    against: str
    load: float | None
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
    question: ServingQuestion, best: ServingOption, other: ServingOption
) -> ThinkingDividend | None:
    """At the load asked for, else at that which the other carries. None where both are one plan,
    where answers have a single token, and where the other cannot keep up with the load: there is
    no wait that could be compared."""
    if other.plan == best.plan or not other.carried or other.overload_fraction:
        return None
    load, mine, theirs = asked_load(question), best.outcome, other.outcome
    if load is None and not is_throughput(question.workload):
        load = other.carried
        mine = try_plan(question, best.plan, load, theirs.e2e_s.mean).outcome
    if mine.tpot_s is None or theirs.tpot_s is None:
        return None
    mean_tokens = theirs.output_tokens / theirs.num_requests
    wait_s = theirs.ttft_s.p50 + (mean_tokens - 1.0) * theirs.tpot_s.p50
    return ThinkingDividend(
        against=other.role,
        load=load,
        wait_s=wait_s,
        sooner_s=mine.ttft_s.p50 + (mean_tokens - 1.0) * mine.tpot_s.p50,
        tokens=mean_tokens,
        more_tokens=thinking_tokens(wait_s, mine.ttft_s.p50, mine.tpot_s.p50),
        usd=other.usd_at_carried,
        less_usd=best.usd_at_carried,
    )
