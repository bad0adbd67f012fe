"""One router of three behind the ingress goes away under load."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack

import pytest
from edge.client import connected, score
from edge.load import Load
from edge.nginx import Nginx
from edge.replica import show_headers
from support.process import eventually
from support.router import Router

SETTINGS = {"trusted_proxies": "127.0.0.1/32", "workers": 1, "drain_grace_ms": 3000}


@pytest.fixture
def routers(tmp_path, objects):
    running = []
    try:
        for number in range(3):
            folder = tmp_path / f"router-{number}"
            folder.mkdir()
            running.append(Router(folder, objects, **SETTINGS))
        yield running
    finally:
        codes = [router.process.stop() for router in running]
    assert codes == [0, 0, 0]


@pytest.fixture
def front(tmp_path, routers):
    folder = tmp_path / "nginx"
    folder.mkdir()
    running = Nginx(folder, routers)
    yield running
    running.stop()


def is_ready(router):
    try:
        with urllib.request.urlopen(f"{router.admin_url}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def listens(router):
    host, port = router.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        return True
    except OSError:
        return False


class Controller:
    """Does what kubelet and ingress controller do together: who is not ready gets nothing new."""

    def __init__(self, front, routers):
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(front, routers), daemon=True)
        self._thread.start()

    def _watch(self, front, routers):
        known = routers
        while not self._over.wait(0.1):
            ready = [router for router in routers if is_ready(router)]
            if ready != known and ready:
                front.send_to(ready)
                known = ready

    def stop(self):
        self._over.set()
        self._thread.join()


def lines_of(router):
    return [json.loads(line) for line in router.access_log.read_text().splitlines()]


def work(exchange):
    """Answers after the time that a model needs."""
    time.sleep(0.05)
    show_headers(exchange)


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not_told"])
def test_a_drain_loses_nothing(front, routers, replica, is_tls, is_told):
    replica.run(work)
    leaving = routers[1]
    controller = Controller(front, routers) if is_told else None
    load = Load(front.tls_port, front.certificate) if is_tls else Load(front.port)
    try:
        eventually(lambda: load.answered() >= 100, "the load has begun", 60)
        leaving.process.child.terminate()
        # While it drains, and after.
        eventually(lambda: leaving.process.child.poll() is not None, leaving.process.printed, 60)
        answered = load.answered()
        eventually(lambda: load.answered() >= answered + 100, "the load goes on without it", 60)
    finally:
        outcomes = load.finish()
        if controller:
            controller.stop()
    assert leaving.process.child.returncode == 0, leaving.process.printed()
    assert Counter(status for status, _ in outcomes) == {200: len(outcomes)}

    # What the clients got is what the routers say they gave, each once.
    for router in routers:
        router.process.stop()
    lines = [lines_of(router) for router in routers]
    logged = Counter(line["XRequestId"] for line in sum(lines, []))
    assert logged == Counter(request_id for _, request_id in outcomes)
    assert {line["Outcome"] for line in sum(lines, [])} == {"served"}
    assert all(len(of_one) > 20 for of_one in lines), [len(of_one) for of_one in lines]


def test_streams_under_way_are_finished_by_the_router_that_leaves(front, routers, replica):
    may_go_on = threading.Event()

    def script(exchange):
        exchange.body()

        def chunks():
            yield b"begin"
            assert may_go_on.wait(60)
            yield b"end"

        exchange.stream(chunks())

    replica.run(script)
    leaving = routers[1]
    with ExitStack() as connections:
        streams = [score(connections.enter_context(connected(front.port))) for _ in range(8)]
        assert [stream.read1() for stream in streams] == [b"begin"] * 8
        leaving.process.child.terminate()
        eventually(lambda: not is_ready(leaving), "it says that it is leaving")
        front.send_to([router for router in routers if router is not leaving])
        eventually(lambda: not listens(leaving), "its listener closes", 60)
        may_go_on.set()
        assert [stream.read() for stream in streams] == [b"end"] * 8
    eventually(lambda: leaving.process.child.poll() is not None, leaving.process.printed, 60)
    lines = lines_of(leaving)
    assert lines and {line["Outcome"] for line in lines} == {"served"}
