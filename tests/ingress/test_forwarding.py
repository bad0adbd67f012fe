"""Ids and addresses: what a trusted ingress says is believed, and nobody else."""

import re

from edge.client import ask, connected, score, seen_by_replica

# A client with an address that is neither nginx nor trusted.
CLIENT = "127.0.0.7"

FORGED = {
    "X-Request-ID": "forged-id",
    "X-Forwarded-For": "203.0.113.66",
    "X-Real-IP": "203.0.113.66",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "forged.test",
    "Forwarded": "for=203.0.113.66",
}

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def port_of(router):
    return int(router.url.rsplit(":", 1)[1])


def test_the_client_and_the_id_of_the_ingress_reach_the_replica_the_log_and_the_client(router, nginx, edge):
    known = len(nginx.ids())
    status, headers, body = ask(edge.port, source=CLIENT, certificate=edge.certificate)
    assert status == 200, body
    seen = seen_by_replica(body)
    assert seen["x-forwarded-for"] == f"{CLIENT}, 127.0.0.1"
    assert seen["x-real-ip"] == CLIENT
    assert seen["x-forwarded-proto"] == edge.scheme
    assert seen["x-forwarded-host"] == "scoring.test"
    assert seen["x-forwarded-port"] == str(edge.port)
    assert seen["host"] == "scoring.test"
    assert "authorization" not in seen
    made_by_nginx = nginx.id_after(known)
    assert re.fullmatch("[0-9a-f]{32}", made_by_nginx)
    assert seen["x-request-id"] == headers["x-request-id"] == made_by_nginx
    line = router.logged(made_by_nginx)
    assert (line["ClientIp"], line["ResponseCode"], line["AuthType"]) == (CLIENT, 200, "key")


def test_what_a_client_claims_to_the_ingress_about_itself_is_not_taken_for_true(router, edge):
    claimed = {name: value for name, value in FORGED.items() if name not in ("X-Request-ID", "Forwarded")}
    _, headers, body = ask(edge.port, claimed, source=CLIENT, certificate=edge.certificate)
    seen = seen_by_replica(body)
    assert seen["x-forwarded-for"] == f"{CLIENT}, 127.0.0.1"
    assert (seen["x-real-ip"], seen["x-forwarded-proto"]) == (CLIENT, edge.scheme)
    assert seen["x-original-forwarded-for"] == "203.0.113.66"
    assert router.logged(headers["x-request-id"])["ClientIp"] == CLIENT


def test_an_id_that_the_ingress_passes_on_for_its_client_is_kept(router, edge):
    # ingress-nginx does so; it answers for what it passes on.
    wanted = f"from-the-client-{edge.scheme}"
    _, headers, body = ask(edge.port, {"X-Request-ID": wanted}, certificate=edge.certificate)
    assert headers["x-request-id"] == seen_by_replica(body)["x-request-id"] == wanted
    assert router.logged(wanted)["ResponseCode"] == 200


def test_an_ingress_that_is_not_trusted_is_the_client(router, nginx, edge):
    known = len(nginx.ids())
    _, headers, body = ask(edge.port, host="stranger.test", source=CLIENT, certificate=edge.certificate)
    seen = seen_by_replica(body)
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.9"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ("http", "stranger.test")
    assert UUID.fullmatch(headers["x-request-id"])
    assert seen["x-request-id"] == headers["x-request-id"] != nginx.id_after(known)
    assert router.logged(headers["x-request-id"])["ClientIp"] == "127.0.0.9"


def test_a_client_that_comes_past_the_ingress_cannot_forge_anything(router):
    _, headers, body = ask(port_of(router), FORGED, source=CLIENT)
    seen = seen_by_replica(body)
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == CLIENT
    assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ("http", "scoring.test")
    assert "203.0.113.66" not in body.decode() and "forged" not in body.decode()
    assert UUID.fullmatch(headers["x-request-id"])
    assert router.logged(headers["x-request-id"])["ClientIp"] == CLIENT


def test_the_ingress_keeps_its_connections_to_the_router(router, nginx, edge):
    def accepted():
        return router.metric("scorefront_connections_accepted_total")

    before = accepted()
    with connected(edge.port, certificate=edge.certificate) as connection:
        for _ in range(50):
            answer = score(connection)
            assert (answer.status, answer.read() != b"") == (200, True)
    # One for each worker of nginx, and one more where it had none at hand.
    assert accepted() - before <= 4


def test_an_error_of_the_router_comes_through_as_it_is(nginx, edge):
    with connected(edge.port, certificate=edge.certificate) as connection:
        connection.request("POST", "/api/v1/endpoint/nobody/score", b"{}", {"Host": "scoring.test"})
        answer = connection.getresponse()
        assert answer.status == 404
        assert b'"UnknownEndpoint"' in answer.read()
