"""When a run saves: every so often as it was told, or as often as loses the least time."""

from __future__ import annotations

from twofold.policy.checkpointing import Interval, checkpoint_interval_s


class Cadence:
    """Seconds of training to the next checkpoint, from what the last one cost; None: none by time.

    Under "best" the first is made after the first step, to learn what one costs; then they follow
    from that cost, from how often a failure stops the job (None: unknown), and from how long it
    takes to be running again.
    """

    def __init__(
        self, every: Interval | None, *, failures_per_s: float | None, restart_s: float
    ) -> None:
        self.every = every
        self.restart_s = restart_s
        self.failures_per_s = failures_per_s
        self._interval_s = 0.0

    @property
    def interval_s(self) -> float | None:
        return self._interval_s if self.every == "best" else self.every

    def is_due(self, trained_s: float) -> bool:
        """Whether so much training since the last checkpoint is to be saved."""
        interval_s = self.interval_s
        return interval_s is not None and trained_s >= interval_s

    def saved(self, *, stall_s: float, write_s: float) -> None:
        """Learn from a checkpoint: the run stood still, and the write behind it took so long."""
        self._interval_s = checkpoint_interval_s(
            stall_s, write_s, self.failures_per_s, self.restart_s
        )
