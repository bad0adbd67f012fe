"""Logs that cannot be written: a full disk, a standard output that is closed, and one that nobody reads.

In each case requests are served as ever, and every line is accounted for: it was read, or it was counted as dropped.
"""

import http.client
import json
import os
import time

import pytest
from replicas import Replica, echo
from support.process import eventually

# Small buffers fill soon.
SMALL = {"access_log": "stdout", "access_log_buffer_bytes": 64 << 10, "workers": 1}
WRITTEN = "scorefront_access_log_written_lines_total"
DROPPED = "scorefront_access_log_dropped_lines_total"
ERRORS = "scorefront_access_log_errors_total"


def into(place):
    """A prefix that sends standard output there, or wherever a redirection of the shell sends what."""
    return ["sh", "-c", f'exec "$@" {place}', "sh"]


class Asked:
    """A client that counts what it asked."""

    def __init__(self, router):
        self.router, self.count = router, 0

    def ask(self, times):
        host, port = self.router.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            for _ in range(times):
                body = b"%d" % self.count
                connection.request("POST", "/api/v1/endpoint/iris/score", body)
                taken = connection.getresponse()
                assert (taken.status, taken.read()) == (200, body), "served, whatever becomes of the log"
                self.count += 1
        finally:
            connection.close()

    def until(self, reason):
        """Asks until lines are dropped for this reason."""
        deadline = time.monotonic() + 60
        while not self.router.metric(DROPPED, reason=reason):
            assert time.monotonic() < deadline, f"no line was dropped as {reason}"
            self.ask(100)

    def accounted(self):
        """The lines that are said to be written, once all are accounted for."""

        def sums():
            return self.router.metric(WRITTEN), self.router.metric(DROPPED), self.count

        eventually(lambda: sum(sums()[:2]) == self.count, lambda: f"written, dropped and asked: {sums()}")
        return sums()[0]


def says(router, text):
    """Whether the trace log says that, soon, and once."""
    eventually(lambda: text in router.process.output.read_text(), f"the trace log says: {text}")
    return router.process.output.read_text().count(text) == 1


def requests_of(text):
    """The ids of the requests that have a line in this text, all of whose lines are whole."""
    return [json.loads(line)["XRequestId"] for line in text.splitlines()]


class Pipe:
    """A named pipe: the router's standard stream, whose reader comes and goes."""

    def __init__(self, folder):
        self.path = folder / "pipe"
        os.mkfifo(self.path)
        self.text = b""
        self.open()

    def open(self):
        self.reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self):
        os.close(self.reader)

    def fill(self):
        """Leaves no room in it."""
        writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            while os.write(writer, b"x" * 4096):
                pass
        os.close(writer)

    def read(self):
        """Everything that is there."""
        try:
            while more := os.read(self.reader, 1 << 16):
                self.text += more
        except BlockingIOError:
            pass
        return self.text.decode()


@pytest.fixture
def pipe(tmp_path):
    return Pipe(tmp_path)


def test_a_full_disk_costs_lines_that_are_counted_and_no_request(patient, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=512k small {disk} && exec "$@"'
    with Replica(echo) as replica:
        router = patient(
            [replica.place],
            prefix=["unshare", "--mount", "sh", "-c", mount, "sh"],
            **(SMALL | {"access_log": disk / "access.log"}),
        )
        client = Asked(router)
        client.ask(10)
        # The disk is in the router's own mounts.
        seen = router.process.child.pid
        log, ballast = [f"/proc/{seen}/root{disk}/{name}" for name in ("access.log", "ballast")]
        with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while file.write(b"x" * 4096):
                pass
        client.until("failing")
        assert router.metric(ERRORS) > 0
        assert says(router, "access log cannot be written")
        printed = router.process.output.read_text()
        assert "No space left on device" in printed and "make room on its disk" in printed
        assert router.metric(DROPPED, reason="slow") == 0
        os.remove(ballast)
        assert says(router, "access log is written again")
        client.ask(10)
        lines = client.accounted()
        with open(log) as file:
            ids = requests_of(file.read())
        assert len(ids) == len(set(ids)) == lines
    router.comes_to_rest()


def test_a_standard_output_that_takes_nothing_costs_no_request(patient):
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=into(">/dev/full"), **SMALL)
        client = Asked(router)
        client.until("failing")
        client.ask(100)
        # What is in the buffers may still come out; the rest is counted.
        kept = client.count - router.metric(DROPPED)
        assert router.metric(WRITTEN) == 0 < kept
        assert router.metric(ERRORS) > 0
        assert says(router, "access log cannot be written")
    router.ends_well()
    assert says(router, "lines of the access log are lost at the end")


def test_a_standard_output_closed_from_the_start_is_told_and_every_line_counted(patient):
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=into(">&-"), **SMALL)
        client = Asked(router)
        client.ask(20)
        assert client.accounted() == 0
        assert router.metric(DROPPED, reason="nowhere") == 20
        assert says(router, "the access log goes nowhere: standard output is closed")
    router.comes_to_rest()


def test_a_reader_that_is_gone_costs_lines_that_are_counted_and_no_request(patient, pipe):
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=into(f">{pipe.path}"), **SMALL)
        client = Asked(router)
        client.ask(10)
        eventually(lambda: len(requests_of(pipe.read())) == 10, "the lines are read")
        pipe.close()
        client.ask(10)
        eventually(lambda: router.metric(ERRORS) > 0, "the writer finds out")
        assert router.metric(DROPPED) == 0, "they may still be read"
        client.until("failing")
        assert says(router, "access log cannot be written")
        printed = router.process.output.read_text()
        assert "Broken pipe" in printed and "whoever read standard output is gone" in printed
        pipe.open()
        client.ask(10)
        lines = eventually(lambda: (pipe.read().endswith("\n") and client.accounted()), "lines flow again")
        ids = requests_of(pipe.read())
        assert len(ids) == len(set(ids)) == lines > 30
        assert says(router, "access log is written again")
        pipe.close()
    router.comes_to_rest()


def test_a_pipe_that_nobody_reads_costs_lines_that_are_counted_and_no_request(patient, pipe):
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=into(f">{pipe.path}"), **SMALL)
        client = Asked(router)
        client.until("slow")
        assert router.metric(ERRORS) == 0, "a blocked pipe is no error"
        says(router, "access log lines dropped: the target takes them too slowly")
        eventually(lambda: pipe.read() and router.metric(WRITTEN), "lines flow again")
        before = router.metric(DROPPED)

        def room():
            pipe.read()
            return client.ask(1) or router.metric(DROPPED) == before

        eventually(room, "there is room again")
        lines = eventually(lambda: pipe.read() and client.accounted(), "all are accounted for")
        ids = eventually(lambda: len(requests_of(pipe.read())) == lines and requests_of(pipe.read()), "all are read")
        assert len(set(ids)) == lines
        pipe.close()
    router.comes_to_rest()


def test_a_standard_error_that_nobody_reads_holds_up_neither_the_start_nor_requests(patient, pipe):
    pipe.fill()
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=into(f"2>{pipe.path}"))
        Asked(router).ask(100)
        eventually(lambda: "scorefront::start: serving" in pipe.read(), "what was said at the start is read later")
        pipe.close()
    router.comes_to_rest()
