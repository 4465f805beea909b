"""Prometheus metrics, under vLLM's names where they mean the same, so that its dashboards work."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from twofold.runtime.serve.messages import Counts, Finish

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0,
)  # fmt: skip


class Metrics:
    """Those of one server, with the model's name as a label."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._last: Counts | None = None
        self._running = self._gauge("num_requests_running", "Requests in the batch")
        self._waiting = self._gauge("num_requests_waiting", "Requests that wait for a place")
        self._kv_used = self._gauge("kv_cache_usage_perc", "Used share of the cache, 1 is all")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts that were answered")
        self._generated = self._counter("generation_tokens", "Generated tokens")
        self._preemptions = self._counter("num_preemptions", "Sequences that lost their blocks")
        self._queries = self._counter(
            "prefix_cache_queries", "Tokens looked up in the prefix cache"
        )
        self._hits = self._counter("prefix_cache_hits", "Tokens found in the prefix cache")
        self._ttft = self._histogram("time_to_first_token_seconds", "From arrival to first token")
        self._gap = self._histogram("inter_token_latency_seconds", "Between tokens of a request")
        self._e2e = self._histogram("e2e_request_latency_seconds", "From arrival to last token")
        self._queued = self._histogram("request_queue_time_seconds", "From arrival to first step")
        self._ended = Counter(
            "vllm:request_success",
            "Requests that ended, by reason",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._refused = Counter(
            "twofold:requests_refused",
            "Requests refused because the queue was full",
            ["model_name"],
            registry=self.registry,
        ).labels(model)
        self._cancelled = Counter(
            "twofold:requests_cancelled",
            "Requests whose client went away",
            ["model_name"],
            registry=self.registry,
        ).labels(model)

        self._failed = Counter(
            "twofold:requests_failed",
            "Requests that ended without their answer, by a fault of the engine",
            ["model_name"],
            registry=self.registry,
        ).labels(model)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def note_step(self, counts: Counts) -> None:
        last = self._last or Counts(0, 0, 0.0, 0, 0, 0, 0)
        self._preemptions.inc(counts.preemptions - last.preemptions)
        self._queries.inc(counts.prefix_queries - last.prefix_queries)
        self._hits.inc(counts.prefix_hits - last.prefix_hits)
        self._running.set(counts.running)
        self._waiting.set(counts.waiting)
        self._kv_used.set(counts.kv_used_fraction)
        self._last = counts

    def note_refused(self) -> None:
        self._refused.inc()

    def note_failed(self) -> None:
        self._failed.inc()

    def watch(self, prompt_tokens: int) -> RequestWatch:
        return RequestWatch(self, prompt_tokens)

    def note_first(self, prompt_tokens: int, ttft_s: float, queued_s: float) -> None:
        self._prompt.inc(prompt_tokens)
        self._generated.inc()
        self._ttft.observe(ttft_s)
        self._queued.observe(queued_s)

    def note_next(self, gap_s: float) -> None:
        self._generated.inc()
        self._gap.observe(gap_s)

    def note_end(self, finish: Finish | None, e2e_s: float) -> None:
        """`finish` None: the client went away."""
        if finish is None:
            self._cancelled.inc()
            return
        self._e2e.observe(e2e_s)
        self._ended.labels(self._model, finish).inc()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, ["model_name"], registry=self.registry).labels(
            self._model
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, ["model_name"], registry=self.registry).labels(
            self._model
        )

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"vllm:{name}", text, ["model_name"], registry=self.registry, buckets=_SECONDS
        ).labels(self._model)


class RequestWatch:
    """Times of one request, from its arrival at the front."""

    def __init__(self, metrics: Metrics, prompt_tokens: int) -> None:
        self._metrics = metrics
        self._prompt_tokens = prompt_tokens
        self._arrived_s = self._last_s = time.monotonic()
        self._has_first = False
        self._has_ended = False

    def note_token(self, queued_s: float) -> None:
        now_s = time.monotonic()
        if self._has_first:
            self._metrics.note_next(now_s - self._last_s)
        else:
            self._metrics.note_first(self._prompt_tokens, now_s - self._arrived_s, queued_s)
        self._has_first = True
        self._last_s = now_s

    def note_end(self, finish: Finish | None) -> None:
        """Only the first end counts."""
        if not self._has_ended:
            self._metrics.note_end(finish, time.monotonic() - self._arrived_s)
        self._has_ended = True

    def note_failed(self) -> None:
        """The engine's fault."""
        if not self._has_ended:
            self._metrics.note_failed()
        self._has_ended = True
