"""The physics in closed form: what a plan takes, before it runs."""

from twofold.perf.train import TrainColumns, estimate, estimate_columns, estimate_row

__all__ = ["TrainColumns", "estimate", "estimate_columns", "estimate_row"]
