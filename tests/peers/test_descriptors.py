"""A router that has no file descriptors left to accept with."""

import socket
import urllib.request

import pytest
from support import manifests
from support.process import eventually
from support.router import Router

DESCRIPTORS = 80


@pytest.fixture
def narrow(tmp_path, servers):
    ports = [server.port for server in servers.green]
    objects = manifests.deployment("iris", "green", ports, auth_mode="none", max_queue_wait_ms=10000)
    running = Router(tmp_path, [*objects], descriptors=DESCRIPTORS)
    yield running
    assert running.process.stop() == 0, running.process.printed()


def score(router, body):
    request = urllib.request.Request(router.scoring_uri("iris"), body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status


def test_a_router_without_descriptors_pauses_and_goes_on_when_there_are_some_again(narrow, setosa):
    assert score(narrow, setosa) == 200
    host, port = narrow.url.removeprefix("http://").split(":")
    # The kernel accepts them all; the router cannot take them all.
    crowd = [socket.create_connection((host, int(port)), timeout=10) for _ in range(2 * DESCRIPTORS)]
    eventually(
        lambda: "cannot accept connections, pausing" in narrow.process.printed(), "the router says that it cannot accept"
    )
    for client in crowd:
        client.close()
    assert score(narrow, setosa) == 200
    assert narrow.metric("scorefront_accept_errors_total") > 0
