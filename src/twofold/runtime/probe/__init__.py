"""Measures what this machine does with PyTorch, as rows of JSON; it interprets nothing."""
