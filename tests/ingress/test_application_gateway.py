"""Azure Application Gateway: its probe, and the headers that it adds. There is none to be had here, so a client at the
trusted address sends what it is documented to send."""

import socket

import pytest
from edge.client import SECONDS_MAX, ask, seen_by_replica

HEADERS = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "X-Original-Host": "scoring.example.com",
    "X-Original-URL": "/api/v1/endpoint/iris/score",
    "X-Appgw-Trace-Id": "fa1a8f1c3d7b4a0f9a4a5d1f60a1b2c3",
}


@pytest.fixture
def port(router):
    return int(router.url.rsplit(":", 1)[1])


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n",
        "GET / HTTP/1.1\r\nHost: 10.224.0.17:8080\r\nConnection: close\r\nUser-Agent: probe\r\nAccept: */*\r\n",
        "GET / HTTP/1.1\r\nHost: [fd00::17]\r\nConnection: close\r\n",
        "GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n",
        "HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n",
    ],
    ids=["as_documented", "with_a_port", "of_ipv6", "of_http_1_0", "head"],
)
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.9"], ids=["trusted", "untrusted"])
def test_the_probe_finds_200_without_a_key_whatever_host_it_asks_for(port, head, source):
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX, (source, 0)) as probe:
        probe.sendall(f"{head}\r\n".encode())
        answer = b""
        while part := probe.recv(4096):
            answer += part
    assert answer.split(b"\r\n")[0].split(b" ")[1] == b"200", answer


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ("203.0.113.7:51234", "203.0.113.7"),
        ("203.0.113.7", "203.0.113.7"),
        ("[2001:db8::7]:51234", "2001:db8::7"),
        # What the client itself sent stands before what the gateway saw.
        ("198.51.100.66, 203.0.113.7:51234", "203.0.113.7"),
    ],
    ids=["with_port", "without", "ipv6", "forged_before_it"],
)
def test_the_client_that_the_gateway_names_is_in_the_log_and_its_headers_reach_the_replica(router, port, told, client):
    status, headers, body = ask(port, HEADERS | {"X-Forwarded-For": told}, host="10.224.0.17", source="127.0.0.1")
    assert status == 200, body
    assert router.logged(headers["x-request-id"])["ClientIp"] == client
    seen = seen_by_replica(body)
    assert seen["x-forwarded-for"] == f"{told}, 127.0.0.1"
    assert {name: seen[name.lower()] for name in HEADERS} == HEADERS
    assert seen["host"] == "10.224.0.17"


def test_nobody_else_can_speak_for_the_gateway(router, port):
    _, headers, body = ask(port, HEADERS | {"X-Forwarded-For": "203.0.113.7:51234"}, source="127.0.0.9")
    assert router.logged(headers["x-request-id"])["ClientIp"] == "127.0.0.9"
    seen = seen_by_replica(body)
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("127.0.0.9", "http")
    assert "203.0.113.7" not in body.decode()
