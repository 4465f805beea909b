"""An engine from a serving plan: device, weights, cache, limits."""

from __future__ import annotations

import torch

from twofold.policy.batching import Limits
from twofold.runtime.allocator import keep_freed_memory
from twofold.runtime.serve.cache import KvCache, num_blocks_that_fit
from twofold.runtime.serve.engine import Engine
from twofold.runtime.serve.loading import dtype_of, find_device, load_network
from twofold.runtime.serve.support import refuse_unsupported
from twofold.serving_document import ServingDocument


def make_engine(document: ServingDocument) -> Engine:
    """InputError or EnvironmentLack where the plan cannot be honoured here."""
    refuse_unsupported(document)
    keep_freed_memory()
    plan, model, device = document.plan, document.model, find_device()
    torch.set_num_threads(plan.threads)
    network = load_network(document, device)
    dtype = dtype_of(document)
    num_blocks = num_blocks_that_fit(model, plan, dtype, device)
    limits = Limits(
        batching=plan.batching,
        max_num_seqs=plan.max_num_seqs,
        max_batched_tokens=plan.max_batched_tokens,
        chunked=plan.chunked_prefill,
        prefix_caching=plan.prefix_caching,
        block_tokens=plan.block_tokens,
        num_blocks=num_blocks,
    )
    cache = KvCache.make(model, num_blocks, plan.block_tokens, dtype, device)
    return Engine(network, cache, limits)
