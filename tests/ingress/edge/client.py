"""Clients with an address of their own: each may be another one of loopback."""

import http.client
import ssl
from contextlib import contextmanager

KEY = "primary-key-of-the-ingress"
OTHER_KEY = "secondary-key-of-the-ingress"

SCORE = "/api/v1/endpoint/iris/score"

# The patience of a client: no test waits as long unless something is broken.
SECONDS_MAX = 30


@contextmanager
def connected(port, host="scoring.test", source=None, certificate=None):
    """A connection to loopback, with TLS where the certificate of the other side is known."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=SECONDS_MAX, source_address=(source, 0) if source else None
    )
    try:
        connection.connect()
        if certificate:
            context = ssl.create_default_context(cafile=certificate)
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        yield connection
    finally:
        connection.close()


def score(connection, headers=None, body=b"{}", host="scoring.test", **options):
    """Sends a request with the key, and gives the answer, whose body has still to be read."""
    headers = {"Host": host, "Authorization": f"Bearer {KEY}"} | (headers or {})
    connection.request("POST", SCORE, body, headers, **options)
    return connection.getresponse()


def ask(port, headers=None, host="scoring.test", source=None, certificate=None):
    """One request on a connection of its own: the status, the headers and the body."""
    with connected(port, host, source, certificate) as connection:
        answer = score(connection, headers, host=host)
        return answer.status, answer.headers, answer.read()


def seen_by_replica(body):
    """The headers that `show_headers` sent back."""
    return dict(line.split(": ", 1) for line in body.decode().splitlines())
