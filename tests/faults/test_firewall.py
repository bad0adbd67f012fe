"""A firewall that drops: replicas and clients that are gone without having said so, and a link that loses packets."""

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from far import BOTH
from replicas import Replica, answer, echo, take_request, vanish
from support.process import eventually, free_port

TIMES = {"request_timeout_ms": 1000, "max_queue_wait_ms": 1000, "on_abandon": "close"}


def test_a_replica_gone_before_the_request_costs_a_504_and_heals_by_itself(patient, far):
    with Replica(echo, far) as replica:
        router = patient([replica.place], annotations=TIMES, connect_timeout_ms=200, upstream_idle_ms=10000)
        assert router.ask(b"1").body == b"1"
        far.drop()
        # The first goes out on the connection that is there and looks alive, the next ones find no new one.
        seen = router.ask(b"2")
        assert (seen.status, seen.code) == (504, "RequestTimeout")
        assert 0.9 < seen.seconds < 10
        assert router.logged(seen.id)["Outcome"] == "replica_timeout"
        refused = router.ask(b"3")
        assert (refused.status, router.logged(refused.id)["Outcome"]) in [
            (502, "connect_failed"),
            (503, "queue_timeout"),
            (504, "replica_timeout"),
        ]
        far.heal()
        back = eventually(lambda: (seen := router.ask(b"4")).status == 200 and seen, "healed", 30)
        assert back.body == b"4"
        eventually(lambda: router.metric("scorefront_replicas", state="ready") == 1, "the replica counts again")
    router.comes_to_rest()


def test_requests_go_elsewhere_while_a_firewall_drops_one_replica(patient, far):
    with Replica(echo, far) as hidden, Replica(echo) as near:
        # Without idle connections each request connects anew.
        router = patient(
            [hidden.place, near.place],
            annotations=TIMES | {"request_timeout_ms": 5000, "max_queue_wait_ms": 5000},
            connect_timeout_ms=200,
            upstream_idle_ms=0,
        )
        far.drop()
        attempts = 0
        for number in range(20):
            seen = router.ask(b"%d" % number)
            assert (seen.status, seen.body) == (200, b"%d" % number)
            line = router.logged(seen.id)
            assert (line["Outcome"], line["Replica"]) == ("served", "%s:%d" % near.place)
            attempts = max(attempts, line["Attempts"])
        assert attempts > 1, "a request was tried elsewhere"
        assert router.metric("scorefront_ejections_total") >= 1
        assert "replica left out after connect failures in a row" in router.process.printed()
        far.heal()

        def comes_back():
            seen = router.ask(b"again")
            assert (seen.status, seen.body) == (200, b"again")
            return router.logged(seen.id)["Replica"] == "%s:%d" % hidden.place

        eventually(comes_back, "the replica behind the firewall is used again", 30)
    router.comes_to_rest()


LONG = {"request_timeout_ms": 60000, "max_queue_wait_ms": 60000}


def test_a_request_on_a_kept_connection_to_a_replica_that_is_gone_goes_elsewhere(patient, far):
    go_on = threading.Event()

    def held(connection):
        while (body := take_request(connection)) is not None:
            go_on.wait(30)
            connection.sendall(answer(body))

    with Replica(held, far) as hidden, Replica(held) as near:
        router = patient(
            [hidden.place, near.place],
            annotations=LONG,
            workers=1,
            connect_timeout_ms=200,
            upstream_idle_ms=60000,
            upstream_unacknowledged_ms=2000,
        )

        def ask_both():
            """One request for each replica: each has one slot, and keeps it until it may go on."""
            go_on.clear()
            with ThreadPoolExecutor(2) as clients:
                asked = [clients.submit(router.ask, body) for body in (b"one", b"two")]
                eventually(lambda: router.metric("scorefront_in_flight_requests") == 2, "both are busy")
                go_on.set()
                seen = [each.result(30) for each in asked]
            assert [(each.status, each.body) for each in seen] == [(200, b"one"), (200, b"two")]
            return [router.logged(each.id) for each in seen]

        assert sorted(line["Replica"] for line in ask_both()) == sorted("%s:%d" % each.place for each in (hidden, near))
        far.drop()
        lines = ask_both()
        assert {line["Replica"] for line in lines} == {"%s:%d" % near.place}
        # The slot of the one that is gone is taken with the connection that was kept, or with one that is tried in vain.
        assert sorted(line["Attempts"] for line in lines) == [1, 2]
        assert router.metric("scorefront_retries_total") == 1
        far.heal()
    router.comes_to_rest()


def test_a_replica_gone_while_it_works_is_noticed_although_nothing_is_on_its_way(patient, far):
    begun, go_on = threading.Event(), threading.Event()

    def works(connection):
        take_request(connection)
        begun.set()
        go_on.wait(30)

    with Replica(works, far) as replica:
        router = patient([replica.place], annotations=LONG, upstream_unacknowledged_ms=2000)
        with ThreadPoolExecutor(1) as client:
            asked = client.submit(router.ask)
            assert begun.wait(10)
            far.drop()
            seen = asked.result(30)
        # On a new connection it is not tried again: it may have been done.
        assert (seen.status, seen.code) == (502, "ReplicaClosedConnection")
        line = router.logged(seen.id)
        assert (line["Outcome"], line["Attempts"]) == ("replica_reset", 1)
        assert "upstream-unacknowledged-ms is 2000" in line["ErrorDetail"]
        assert router.metric("scorefront_in_flight_requests") == 0
        go_on.set()
        far.heal()
    router.comes_to_rest()


def test_a_replica_that_is_slow_to_read_is_not_taken_for_gone(patient, far):
    go_on = threading.Event()

    def reads_late(connection):
        connection.recv(1)
        go_on.wait(30)
        connection.sendall(answer(b"%d" % len(take_request(connection))))

    with Replica(reads_late, far) as replica:
        # Far less than the time until it reads.
        router = patient([replica.place], annotations=LONG, upstream_unacknowledged_ms=500)
        with ThreadPoolExecutor(1) as client:
            asked = client.submit(router.ask, b"x" * (16 << 20))
            time.sleep(3)
            go_on.set()
            seen = asked.result(30)
        assert (seen.status, seen.body) == (200, b"%d" % (16 << 20))
    router.comes_to_rest()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"annotations": TIMES}, "request-timeout-ms"),
        # It may be silent for a minute, and is known to be gone long before.
        ({"annotations": LONG, "upstream_unacknowledged_ms": 2000}, "the replica broke off its answer"),
    ],
    ids=["by the time it may take", "by what the kernel asks"],
)
def test_a_replica_gone_in_the_middle_of_its_answer_ends_in_a_broken_one(patient, far, settings, why):
    begun, go_on = threading.Event(), threading.Event()

    def half(connection):
        take_request(connection)
        connection.sendall(answer(b"x" * 100000)[:50000])
        begun.set()
        go_on.wait(30)

    with Replica(half, far) as replica:
        router = patient([replica.place], **settings)
        with ThreadPoolExecutor(1) as client:
            seen = client.submit(read_all, router)
            assert begun.wait(10)
            far.drop()
            status, id, length, whole = seen.result(30)
        assert (status, whole) == (200, False), "what is missing must not look complete"
        line = router.logged(id)
        assert line["Outcome"] == "stream_broken" and length <= line["ResponsePayloadSize"] < 100000
        assert why in line["ErrorDetail"]
        eventually(lambda: router.metric("scorefront_in_flight_requests") == 0, "the slot is free")
        go_on.set()
        far.heal()
    router.comes_to_rest()


def read_all(router):
    """Status, id and length of an answer, and whether all of it came."""
    connection = connect(router)
    length = 0
    try:
        connection.request("POST", "/api/v1/endpoint/iris/score", b"{}")
        taken = connection.getresponse()
        try:
            while part := taken.read1():
                length += len(part)
        except (http.client.IncompleteRead, ConnectionResetError):
            pass
        whole = length == int(taken.headers["content-length"])
        return taken.status, taken.headers["x-request-id"], length, whole
    finally:
        connection.close()


def connect(router):
    return http.client.HTTPConnection(*router.url.removeprefix("http://").split(":"), timeout=30)


def test_a_replica_that_restarted_unseen_is_asked_again_on_a_new_connection(patient, far):
    with Replica(echo, far) as replica:
        router = patient([replica.place], annotations=TIMES, workers=1, upstream_idle_ms=20000)
        assert router.ask(b"1").body == b"1"
        far.drop()
        # Its end never reaches the router: the connection in the pool looks alive.
        vanish(replica.connections[-1])
    far.heal()
    with Replica(echo, far, port=replica.place[1]):
        seen = router.ask(b"2")
        assert (seen.status, seen.body) == (200, b"2")
        line = router.logged(seen.id)
        assert (line["Outcome"], line["Attempts"]) == ("served", 2)
        assert router.metric("scorefront_retries_total") == 1
    router.comes_to_rest()


def test_a_client_gone_while_it_waits_in_line_holds_nothing_for_long(patient, far):
    go_on = threading.Event()

    def slow(connection):
        while (body := take_request(connection)) is not None:
            go_on.wait(30)
            # More than the sockets of a client that takes nothing have room for.
            connection.sendall(answer(b"x" * (16 << 20) if body == b"lost" else body))

    with Replica(slow) as replica:
        port = free_port()
        router = patient(
            [replica.place],
            annotations={"request_timeout_ms": 60000, "max_queue_wait_ms": 60000, "on_abandon": "close"},
            listen=f"0.0.0.0:{port}",
            body_timeout_ms=500,
            head_timeout_ms=1000,
            client_idle_timeout_ms=2000,
        )
        router.url = f"http://127.0.0.1:{port}"
        with ThreadPoolExecutor(1) as client:
            first = client.submit(router.ask, b"first")
            eventually(lambda: router.metric("scorefront_in_flight_requests") == 1, "the first has the slot")
            lost = far.does(lambda: socket.create_connection((far.here, port), timeout=10))
            lost.sendall(b"POST /api/v1/endpoint/iris/score HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nlost")
            eventually(lambda: router.metric("scorefront_queued_requests") == 1, "the other one waits")
            far.drop()
            vanish(lost)
            go_on.set()
            assert first.result(30).body == b"first"
        eventually(lambda: router.metric("scorefront_requests_total", outcome="client_gone") == 1, "it is given up")
        assert router.ask(b"next").body == b"next"
    router.comes_to_rest()
    far.heal()


def test_a_client_gone_between_requests_is_forgotten_after_the_idle_time(patient, far):
    with Replica(echo) as replica:
        port = free_port()
        router = patient([replica.place], listen=f"0.0.0.0:{port}", head_timeout_ms=1000, client_idle_timeout_ms=1000)
        router.url = f"http://127.0.0.1:{port}"
        lost = far.does(lambda: socket.create_connection((far.here, port), timeout=10))
        lost.sendall(b"POST /api/v1/endpoint/iris/score HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nhere")
        assert b"200" in lost.recv(65536)
        far.drop()
        vanish(lost)
        eventually(lambda: router.metric("scorefront_connections") == 0, "the connection is closed")
        far.heal()
    router.comes_to_rest()


@pytest.mark.parametrize("whose", ["clients", "replicas"])
def test_a_link_that_loses_five_percent_costs_time_and_no_request(patient, far, whose):
    port = free_port()
    with Replica(echo, far if whose == "replicas" else None) as replica:
        router = patient(
            [replica.place],
            annotations={
                "request_timeout_ms": 60000,
                "max_queue_wait_ms": 60000,
                "max_concurrent_requests_per_instance": 16,
            },
            connect_timeout_ms=30000,
            listen=f"0.0.0.0:{port}",
        )
        router.url = f"http://127.0.0.1:{port}"
        far.drop(0.05)
        bodies = [b"%d" % number * 3000 for number in range(150)]
        began = time.monotonic()
        with ThreadPoolExecutor(16) as crowd:
            ask = (lambda body: ask_from(far, port, body)) if whose == "clients" else ask_one(router)
            answers = list(crowd.map(ask, bodies))
        print(f"{len(bodies)} requests in {time.monotonic() - began:.1f} s")
        assert answers == [(200, body) for body in bodies]
        assert all(far.dropped(chain) > 5 for chain in BOTH)
        assert router.metric("scorefront_requests_total", outcome="served") == len(bodies)
        far.heal()
    router.comes_to_rest()


def ask_one(router):
    def ask(body):
        seen = router.ask(body, patience=60)
        return seen.status, seen.body

    return ask


def ask_from(far, port, body):
    connection = http.client.HTTPConnection(far.here, port, timeout=60)
    connection.sock = far.does(lambda: socket.create_connection((far.here, port), timeout=60))
    try:
        connection.request("POST", "/api/v1/endpoint/iris/score", body)
        taken = connection.getresponse()
        return taken.status, taken.read()
    finally:
        connection.close()
