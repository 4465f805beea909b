"""`Run`: what one finished training run says of itself, the same for every engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Times in seconds, losses in nats per token.

    `train_s` is the training clock, without start-up and evaluation. `step_times_s` are those
    after `discarded_steps` warm-up steps. `curve` holds (tokens, seconds, training loss).
    """

    tokens: int
    num_steps: int
    startup_s: float
    train_s: float
    cpu_s: float
    step_times_s: tuple[float, ...]
    train_loss: float | None
    tune_loss: float | None
    test_loss: float | None
    peak_memory_bytes: float | None
    num_parameters: int | None
    curve: list[tuple[int, float, float]]
    diverged: bool = False


def thin_curve(
    points: list[tuple[int, float, float]], *, limit: int = 60
) -> list[tuple[int, float, float]]:
    """At most `limit` points, each the mean loss of the stretch it ends."""
    if len(points) <= limit:
        return points
    thinned = []
    for index in range(limit):
        first = index * len(points) // limit
        last = (index + 1) * len(points) // limit
        stretch = points[first:last]
        mean_loss = sum(loss for _, _, loss in stretch) / len(stretch)
        thinned.append((stretch[-1][0], stretch[-1][1], mean_loss))
    return thinned
