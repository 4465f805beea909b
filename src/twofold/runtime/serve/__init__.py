"""The embedded serving engine: a small reference of paged, continuous batching on PyTorch.

Two processes. The engine (`engine.py` in the loop of `process.py`) knows token ids alone: it asks
`policy.batching` what the next step holds, computes it and tells which tokens came. The front
(`api/`) knows text and HTTP, and needs no PyTorch. They talk over a pipe (`messages.py`), so that
answering clients takes no time from the steps.
"""
