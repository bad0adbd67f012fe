"""Streams through the ingress. Nothing is measured: each side goes on only when the other has got what was sent, so a
stream that is held back anywhere does not end."""

import threading
from queue import Queue

import pytest
from edge.client import SECONDS_MAX, connected, score

CHUNKS = [b"data: token %d\n\n" % number for number in range(20)]


def after_each_receipt(receipts):
    """The chunks, each but the first only after the client has got the one before."""
    for number, chunk in enumerate(CHUNKS):
        if number:
            receipts.get(timeout=SECONDS_MAX)
        yield chunk


@pytest.mark.parametrize(
    ("host", "asks"),
    [("scoring.test", {}), ("buffered.test", {"X_Accel_Buffering": "no"})],
    ids=["by_default", "when_the_model_asks"],
)
def test_every_token_reaches_the_client_before_the_next_is_sent(edge, replica, host, asks):
    receipts = Queue()

    def script(exchange):
        exchange.body()
        exchange.stream(after_each_receipt(receipts), Content_Type="text/event-stream", **asks)

    replica.run(script)
    with connected(edge.port, host, certificate=edge.certificate) as connection:
        answer = score(connection, host=host)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        for chunk in CHUNKS:
            got = b""
            while len(got) < len(chunk):
                got += answer.read1()
            assert got == chunk
            receipts.put(None)
        assert answer.read() == b""


def test_an_ingress_that_buffers_passes_the_whole_stream_on_too(edge, replica):
    def script(exchange):
        exchange.body()
        exchange.stream(CHUNKS, Content_Type="text/event-stream")

    replica.run(script)
    with connected(edge.port, "buffered.test", certificate=edge.certificate) as connection:
        assert score(connection, host="buffered.test").read() == b"".join(CHUNKS)


def test_every_chunk_of_an_upload_reaches_the_replica_before_the_next_is_sent(edge, replica):
    arrived = Queue()

    def script(exchange):
        for chunk in exchange.chunks():
            arrived.put(chunk)
        exchange.answer(b"all of it")

    def upload():
        for chunk in CHUNKS:
            yield chunk
            # The router may cut and join chunks; their bytes come in order.
            got = b""
            while len(got) < len(chunk):
                got += arrived.get(timeout=SECONDS_MAX)
            assert got == chunk

    replica.run(script)
    with connected(edge.port, "uploads.test", certificate=edge.certificate) as connection:
        answer = score(connection, body=upload(), host="uploads.test", encode_chunked=True)
        assert (answer.status, answer.read()) == (200, b"all of it")


def test_a_client_that_leaves_a_stream_frees_the_replica(edge, replica):
    is_over = threading.Event()

    def script(exchange):
        exchange.body()

        def endless():
            while True:
                yield b"data: x\n\n" * 1000

        try:
            exchange.stream(endless(), Content_Type="text/event-stream")
        except OSError:
            is_over.set()
        exchange.close_connection = True

    replica.run(script)
    with connected(edge.port, certificate=edge.certificate) as connection:
        assert score(connection).read1() != b""
    assert is_over.wait(SECONDS_MAX)
