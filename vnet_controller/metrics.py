"""What Prometheus reads; base units, prefix `vnet_controller_`, a registry of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = self._counter("events", "Events stored for the first time.", "type")
        self.duplicates = self._counter("events_duplicate", "Events that were stored already.")
        self.problems = self._counter("problems", "Requests refused or failed.", "status")
        self.requests = Histogram(
            "vnet_controller_request_seconds",
            "Time to answer a request, except streams and long polls.",
            ["method", "route"],
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "vnet_controller_commit_seconds",
            "Time of a transaction, flush to the disk included.",
            registry=self.registry,
        )
        self.commit_jobs = Histogram(
            "vnet_controller_commit_jobs",
            "Requests that shared a transaction.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
            registry=self.registry,
        )
        self.open_streams = 0
        streams = self._gauge("streams", "Open event streams.")
        streams.set_function(lambda: self.open_streams)
        self.position = self._gauge("event_position", "Position of the newest event.")
        self.revision = self._gauge("policy_revision", "Revision of the policy.")
        self.hosts = self._gauge("hosts", "Hosts by state.", "state")
        self.instances = self._gauge("instances", "Instances by state.", "state")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"vnet_controller_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"vnet_controller_{name}", text, labels, registry=self.registry)

    @contextmanager
    def count_stream(self) -> Iterator[None]:
        self.open_streams += 1
        try:
            yield
        finally:
            self.open_streams -= 1

    def render(self) -> bytes:
        return generate_latest(self.registry)
