"""One router behind nginx, and a replica whose answers the tests write."""

from types import SimpleNamespace

import pytest
from edge.client import KEY, OTHER_KEY
from edge.nginx import Nginx
from edge.replica import Replica, show_headers
from support import manifests
from support.router import Router

# nginx comes from there; the addresses of clients, and of an ingress that nobody trusts, are others.
TRUSTED = "127.0.0.1/32"


@pytest.fixture(scope="session")
def replica():
    running = Replica()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def usual_script(replica):
    replica.run(show_headers)


@pytest.fixture(scope="session")
def objects(replica):
    # No limit: what is tested here is not the queue.
    settings = {"max_concurrent_requests_per_instance": 0, "request_timeout_ms": 20000}
    return [*manifests.deployment("iris", "blue", [replica.port], **settings), manifests.keys("iris", KEY, OTHER_KEY)]


@pytest.fixture(scope="session")
def router(tmp_path_factory, objects):
    running = Router(tmp_path_factory.mktemp("router"), objects, trusted_proxies=TRUSTED)
    yield running
    assert running.process.stop() == 0, running.process.printed()


@pytest.fixture(scope="session")
def nginx(tmp_path_factory, router):
    running = Nginx(tmp_path_factory.mktemp("nginx"), [router])
    yield running
    running.stop()


@pytest.fixture(params=["http", "https"])
def edge(request, nginx):
    """Where clients connect to, and how."""
    if request.param == "http":
        return SimpleNamespace(scheme="http", port=nginx.port, certificate=None)
    return SimpleNamespace(scheme="https", port=nginx.tls_port, certificate=nginx.certificate)
