"""Replicas that accept and never answer, and replicas that answer before they were asked."""

import threading

import pytest
from replicas import Replica, answer, echo, take_request
from support.process import eventually


def test_a_silent_replica_costs_its_client_a_504_and_closing_gives_its_slot_back(patient):
    asked = threading.Semaphore(0)

    def silent(connection):
        take_request(connection)
        asked.release()
        connection.recv(1)

    with Replica(silent) as replica:
        router = patient([replica.place], annotations={"request_timeout_ms": 400, "on_abandon": "close"})
        for _ in range(3):
            seen = router.ask()
            assert (seen.status, seen.code) == (504, "RequestTimeout")
            assert 0.35 < seen.seconds < 3
            assert asked.acquire(timeout=5), "the replica was asked"
            line = router.logged(seen.id)
            assert (line["Outcome"], line["ResponseCode"], line["Attempts"]) == ("replica_timeout", 504, 1)
        router.comes_to_rest()


def test_a_silent_replica_counts_as_busy_until_it_answers_after_all(patient):
    go_on = threading.Event()

    def late(connection):
        while (body := take_request(connection)) is not None:
            go_on.wait(30)
            connection.sendall(answer(body))

    with Replica(late) as replica:
        router = patient([replica.place], annotations={"request_timeout_ms": 400, "max_queue_wait_ms": 200})
        seen = router.ask(b'"first"')
        assert (seen.status, seen.code) == (504, "RequestTimeout")
        assert router.metric("scorefront_abandoned_slots") == 1
        second = router.ask(b'"second"')
        assert (second.status, second.code) == (503, "QueueWaitExceeded")
        assert router.logged(second.id)["Outcome"] == "queue_timeout"
        go_on.set()
        router.comes_to_rest()
        third = router.ask(b'"third"')
        assert (third.status, third.body) == (200, b'"third"')


@pytest.mark.parametrize("together", [True, False], ids=["in the same packet", "in a later packet"])
def test_an_answer_nobody_asked_for_never_reaches_the_next_client(patient, together):
    def hasty(connection):
        body = take_request(connection)
        early = answer(b'"nobody asked"')
        if together:
            connection.sendall(answer(body) + early)
        else:
            connection.sendall(answer(body))
            connection.sendall(early)
        while (body := take_request(connection)) is not None:
            connection.sendall(answer(body))

    with Replica(hasty) as replica:
        router = patient([replica.place])
        for number in range(100):
            body = b"%d" % number
            seen = router.ask(body)
            assert seen.status in (200, 502)
            outcome = router.logged(seen.id)["Outcome"]
            if seen.status == 200:
                assert (seen.body, outcome) == (body, "served")
            else:
                assert (seen.code, outcome) == ("ReplicaClosedConnection", "replica_reset")
        router.comes_to_rest()


def test_an_idle_connection_that_got_an_answer_is_not_used_again(patient):
    with Replica(echo) as replica:
        router = patient([replica.place], upstream_idle_ms=30000, workers=1)
        # What is written into the idle connection before the next request leaves is there before it.
        for number in range(100):
            assert router.ask(b"%d" % number).body == b"%d" % number
            replica.connections[-1].sendall(answer(b'"nobody asked"'))
            seen = router.ask(b'"next"')
            assert (seen.status, seen.body) == (200, b'"next"')
        assert len(replica.connections) > 100, "the spoilt connections were not used again"
        eventually(lambda: router.metric("scorefront_in_flight_requests") == 0, "no slot is taken")
    router.comes_to_rest()
