"""What Prometheus reads at /metrics, under vLLM's names wherever they mean the same. Times are in seconds."""

from __future__ import annotations

from itertools import pairwise

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .driver import Driver
from .watching import Step, name_of

TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The numbers of one server, in a registry of their own. A request counts for the model or adapter it asked for."""

    def __init__(self, driver: Driver, model: str) -> None:
        self.registry, self.model = CollectorRegistry(), model
        self.started_s: dict[int, float] = {}  # when each running request was first read, by number
        self._gauges(driver)
        self.generation_tokens = self._counter("generation_tokens", "Tokens that were generated.")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of requests that were begun.")
        self.preemptions = self._counter("num_preemptions", "Requests that lost their blocks to others for a while.")
        self.cache_queries = self._counter("prefix_cache_queries", "Prompt tokens that were looked up in the cache.")
        self.cache_hits = self._counter("prefix_cache_hits", "Prompt tokens that were found in the cache.")
        self.success = self._counter("request_success", "Requests that have ended, by reason.", "finished_reason")
        self.ttft = self._histogram("time_to_first_token_seconds", "From arrival to first token.", REQUEST_BUCKETS_S)
        self.itl = self._histogram("inter_token_latency_seconds", "From one token to the next.", TOKEN_BUCKETS_S)
        self.e2e = self._histogram("e2e_request_latency_seconds", "From arrival to last token.", REQUEST_BUCKETS_S)
        self.queue = self._histogram("request_queue_time_seconds", "From arrival to first forward.", REQUEST_BUCKETS_S)

    def tell(self, step: Step) -> None:
        """Count what a step did."""
        self.generation_tokens.labels(self.model).inc(step.tokens)
        self.preemptions.labels(self.model).inc(step.preempted)
        for row in step.rows:
            request = row.request
            if request.number not in self.started_s:  # its first step; after a preemption nothing counts again
                start_s = self.started_s[request.number] = step.end_s - step.seconds
                self.queue.labels(name_of(request, self.model)).observe(max(0.0, start_s - request.arrival_s))
                self.prompt_tokens.labels(self.model).inc(request.prompt_tokens)
                self.cache_queries.labels(self.model).inc(request.prompt_tokens)
                self.cache_hits.labels(self.model).inc(request.cached_tokens or 0)
        for ended in step.ended:
            request, name = ended.request, name_of(ended.request, self.model)
            self.started_s.pop(request.number, None)
            self.success.labels(name, "abort" if ended.reason == "cancelled" else ended.reason).inc()
            if ended.ttft_s is not None:
                self.ttft.labels(name).observe(ended.ttft_s)
                self.e2e.labels(name).observe(request.token_times_s[-1] - request.arrival_s)
            for before_s, after_s in pairwise(request.token_times_s):
                self.itl.labels(name).observe(after_s - before_s)

    def exposition(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _gauges(self, driver: Driver) -> None:
        scheduler, blocks = driver.scheduler, driver.scheduler.blocks
        gauges = {
            "num_requests_running": ("Requests that run.", lambda: len(scheduler.running)),
            "num_requests_waiting": ("Requests that wait.", lambda: max(0, driver.open - len(scheduler.running))),
            "kv_cache_usage_perc": (
                "Share of the cache in use, 1 is all.",
                lambda: 1 - blocks.available / blocks.count,
            ),
        }
        for name, (what, measure) in gauges.items():
            gauge = Gauge(f"vllm:{name}", what, ["model_name"], registry=self.registry)
            gauge.labels(self.model).set_function(measure)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        counter = Counter(f"vllm:{name}", what, ["model_name", *labels], registry=self.registry)
        if not labels:
            counter.labels(self.model)  # shown from the beginning, as 0
        return counter

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vllm:{name}", what, ["model_name"], buckets=buckets, registry=self.registry)
