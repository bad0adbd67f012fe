"""File descriptors that run out: clients that take all of them, and a router that has none left for anything."""

import http.client
import json
import resource
import socket
import threading

from replicas import Replica, answer, echo, take_request
from support import manifests
from support.process import eventually

SCORE = "/api/v1/endpoint/iris/score"
FEW = 128


def allowed(soft, hard=None):
    """A prefix that allows so many descriptors."""
    return ["sh", "-c", f'ulimit -S -n {soft} && ulimit -H -n {hard or soft} && exec "$@"', "sh"]


class Client:
    """A connection that is kept."""

    def __init__(self, router):
        self.connection = http.client.HTTPConnection(*place(router), timeout=30)

    def ask(self, body=b"{}"):
        self.connection.request("POST", SCORE, body)
        taken = self.connection.getresponse()
        return taken.status, taken.read(), taken.headers

    def close(self):
        self.connection.close()


def place(router):
    host, port = router.url.removeprefix("http://").split(":")
    return host, int(port)


def trace(router):
    return router.process.output.read_text()


class Shut:
    """For as long as it lasts, the router gets no new descriptor; those that it has stay."""

    def __init__(self, router):
        self.pid = router.process.child.pid

    def __enter__(self):
        self.before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (0, self.before[1]))

    def __exit__(self, *_):
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.before)


def test_clients_that_take_all_they_can_leave_enough_to_serve_those_who_are_in(patient):
    with Replica(echo) as replica:
        # Each request needs a descriptor of its own, for its connection to the replica.
        # Pipes are counted for each worker, of which there are as many as cores.
        settings = {"upstream_idle_ms": 0, "goodbye_timeout_ms": 200, "max_splice_pipes": 0}
        router = patient([replica.place], prefix=allowed(FEW), **settings)
        needed = "max-connections 10000 needs 20256 open files"
        eventually(lambda: needed in trace(router) and f"the limit is {FEW}" in trace(router), "it is told at the start")
        first = Client(router)
        assert first.ask(b"1")[:2] == (200, b"1")
        crowd = [socket.create_connection(place(router), timeout=10) for _ in range(2 * FEW)]
        turned_away = "scorefront_connections_refused_descriptors_total"
        eventually(lambda: router.metric(turned_away) > FEW, "clients are turned away")
        for number in range(20):
            assert first.ask(b"%d" % number)[:2] == (200, b"%d" % number)
        assert router.metric("scorefront_accept_errors_total") == 0, "they were accepted, and told"
        assert router.metric("scorefront_requests_total", outcome="overloaded") == router.metric(turned_away)
        assert trace(router).count("clients are turned away: few file descriptors are left") == 1
        told = [json.loads(words)["error"] for words in filter(None, map(last_words, crowd))]
        assert told and all(error["code"] == "RouterOverloaded" for error in told)
        assert all("limit of open files" in error["message"] for error in told)
        for each in crowd:
            each.close()
        eventually(lambda: router.ask(b"2").status == 200, "others are served again")
        eventually(lambda: "clients are served again" in trace(router), "it says so")
        first.close()
    router.comes_to_rest()


def last_words(client):
    """The body of the answer that a client finds without having asked; nothing where it is served, or was cut off."""
    client.settimeout(0)
    try:
        return client.recv(65536).partition(b"\r\n\r\n")[2]
    except (BlockingIOError, ConnectionResetError):
        return b""


def test_a_router_that_can_accept_nobody_serves_those_it_has_and_goes_on_when_it_can(patient):
    with Replica(echo) as replica:
        router = patient([replica.place], workers=1, upstream_idle_ms=30000)
        first = Client(router)
        assert first.ask(b"1")[:2] == (200, b"1")
        with Shut(router):
            # The kernel accepts them; the router cannot take them.
            crowd = [socket.create_connection(place(router), timeout=10) for _ in range(20)]
            eventually(lambda: "cannot accept connections, pausing" in trace(router), "it says that it cannot accept")
            for number in range(20):
                assert first.ask(b"%d" % number)[:2] == (200, b"%d" % number)
            crowd[0].sendall(b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nlate" % SCORE.encode())
        assert b"200 OK" in crowd[0].recv(65536), "who waited is served then"
        eventually(lambda: "connections are accepted again" in trace(router), "it says that it goes on")
        assert trace(router).count("cannot accept connections, pausing") == 1
        assert "raise the limit of open files" in trace(router)
        assert router.metric("scorefront_accept_errors_total") > 1
        for each in [first, *crowd]:
            each.close()
    router.comes_to_rest()


def test_a_request_without_a_descriptor_for_its_replica_is_told_so_and_blames_no_replica(patient):
    with Replica(echo) as one, Replica(echo) as other:
        router = patient([one.place, other.place], workers=1, upstream_idle_ms=0)
        clients = [Client(router) for _ in range(10)]
        assert [client.ask()[0] for client in clients] == [200] * 10
        with Shut(router):
            for client in clients:
                status, body, headers = client.ask()
                error = json.loads(body)["error"]
                assert (status, error["code"], headers["retry-after"]) == (503, "RouterOverloaded", "1")
                assert headers["x-scorefront-limit"] == "descriptors"
                assert "no file descriptor left to connect to a replica" in error["message"]
                line = router.logged(headers["x-request-id"])
                assert (line["Outcome"], line["Attempts"]) == ("overloaded", 1), "another would need one too"
        assert [client.ask(b"again")[:2] for client in clients] == [(200, b"again")] * 10, "at once: nobody was left out"
        assert router.metric("scorefront_limited_requests_total", limit="descriptors") == 10
        assert router.metric("scorefront_ejections_total") == 0
        assert router.metric("scorefront_retries_total") == 0
        assert router.metric("scorefront_replicas", state="ready") == 2
        eventually(lambda: "requests are turned away" in trace(router), "the trace log has it")
        assert trace(router).count("requests are turned away") == 1
        for client in clients:
            client.close()
    router.comes_to_rest()


def test_a_request_that_broke_for_want_of_a_descriptor_gives_its_slot_to_the_next(patient):
    busy, go_on = threading.Event(), threading.Event()

    def slow(connection):
        while (body := take_request(connection)) is not None:
            busy.set()
            go_on.wait(30)
            connection.sendall(answer(body))

    with Replica(slow) as replica:
        router = patient([replica.place], workers=1, upstream_idle_ms=0, annotations={"max_queue_wait_ms": 30000})
        clients = [Client(router) for _ in range(3)]
        asked = [threading.Thread(target=lambda each=each: results.append(each.ask()[0])) for each in clients]
        results = []
        asked[0].start()
        assert busy.wait(10)
        for each in asked[1:]:
            each.start()
        eventually(lambda: router.metric("scorefront_queued_requests") == 2, "the others wait in line")
        with Shut(router):
            go_on.set()
            for each in asked:
                each.join(30)
        assert sorted(results) == [200, 503, 503]
        for each in clients:
            each.close()
    router.comes_to_rest()


def test_a_copy_without_a_descriptor_for_its_replica_blames_no_replica_either(patient):
    with Replica(echo) as replica, Replica(echo) as shadow, Replica(echo) as other:
        settings = {"auth_mode": "none", "traffic_percent": 0, "mirror_percent": 50}
        copies = manifests.deployment("iris", "shadow", [shadow.place, other.place], **settings)
        router = patient([replica.place], workers=1, upstream_idle_ms=30000, more=copies, annotations={"traffic_percent": 100})
        client = Client(router)
        assert client.ask()[0] == 200
        with Shut(router):
            assert [client.ask()[0] for _ in range(60)] == [200] * 60, "its connection to the replica is kept"
        failed = "scorefront_mirrored_requests_total"
        eventually(lambda: router.metric(failed, result="failed") > 5, "copies failed")
        assert router.metric("scorefront_ejections_total", deployment="shadow") == 0
        client.close()
    router.comes_to_rest()


def test_the_limit_is_raised_to_what_the_process_may_have(patient):
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=allowed(64, 4000), max_connections=1000)
        assert router.metric("process_max_fds") == 4000
        assert "open files" not in trace(router), "it is enough for 1000 connections"
        assert router.ask().status == 200
