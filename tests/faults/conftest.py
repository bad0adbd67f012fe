"""Routers that must come out of every fault as they were, and a network in which packets get lost."""

import http.client
import json
import os
import time
from dataclasses import dataclass

import pytest
from far import Far
from support import manifests
from support.process import eventually
from support.router import Router

ENDPOINT = "iris"
# A router may grow by so much: pages of the allocator, not what a fault left behind.
GROWTH_MAX = 64 << 20


@dataclass
class Seen:
    """What a client saw of its request."""

    status: int
    body: bytes
    id: str
    seconds: float

    @property
    def code(self):
        return json.loads(self.body)["error"]["code"]


class Patient(Router):
    """A router with one endpoint without keys, that says whether anything of a fault stayed behind."""

    def __init__(self, folder, replicas, prefix=(), annotations=None, more=(), **settings):
        objects = manifests.deployment(ENDPOINT, "only", replicas, **({"auth_mode": "none"} | (annotations or {})))
        # Idle connections go soon, so that open descriptors are leaks.
        super().__init__(folder, [*objects, *more], prefix=prefix, **({"upstream_idle_ms": 1000} | settings))
        self.base = self.descriptors()
        self.memory_base = self.memory()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.child.pid}/fd"))

    def memory(self):
        with open(f"/proc/{self.process.child.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(self, body=b"{}", patience=30):
        host, port = self.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=patience)
        began = time.monotonic()
        try:
            connection.request("POST", f"/api/v1/endpoint/{ENDPOINT}/score", body)
            answer = connection.getresponse()
            content = answer.read()
            return Seen(answer.status, content, answer.headers["x-request-id"], time.monotonic() - began)
        finally:
            connection.close()

    def remains(self):
        """What is taken and would not be at rest."""
        gauges = ["in_flight_requests", "queued_requests", "abandoned_slots", "connections"]
        taken = {name: self.metric(f"scorefront_{name}") for name in gauges}
        # The scrape's own connection may still be open.
        taken["descriptors"] = max(0, self.descriptors() - self.base - 1)
        grown = self.memory() - self.memory_base
        taken["bytes"] = grown if grown > GROWTH_MAX else 0
        return {name: count for name, count in taken.items() if count}

    def ends_well(self):
        self.comes_to_rest()
        code = self.process.stop()
        assert code == 0, f"ended with {code}:\n{self.process.printed()}"

    def comes_to_rest(self, seconds=10.0):
        eventually(lambda: not self.remains(), lambda: f"at rest; there remain {self.remains()}", seconds)


@pytest.fixture
def patient(tmp_path):
    """Makes routers, and ends them: they must have come to rest by then, and must end well."""
    running = []

    def start(replicas, **options):
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(Patient(folder, replicas, **options))
        return running[-1]

    yield start
    try:
        for router in running:
            if router.process.child.poll() is None:
                router.comes_to_rest()
    finally:
        codes = [router.process.stop() for router in running]
    assert codes == [0] * len(running), [router.process.printed() for router in running]


@pytest.fixture
def far():
    """A second network, behind a link that can be cut."""
    network = Far()
    yield network
    network.close()
