"""A wall clock that jumps by hours while the router runs; the monotonic one goes on."""

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from replicas import Replica, echo, take_request
from support.process import eventually, free_port, need

DAYS = 30


class Clock:
    """The wall clock of one process, by a file that libfaketime reads again at each look."""

    def __init__(self, folder):
        need("faketime", "apt-get install faketime")
        [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.file = folder / "clock"
        self.jump(0)
        self.prefix = [
            "env",
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={self.file}",
            "FAKETIME_NO_CACHE=1",
            "DONT_FAKE_MONOTONIC=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]

    def jump(self, hours):
        draft = self.file.with_suffix(".draft")
        draft.write_text(f"{hours:+d}h\n")
        draft.rename(self.file)


@pytest.fixture
def certificate(tmp_path):
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = [need("openssl", "apt-get install openssl"), "req", "-x509", "-newkey", "ec", "-nodes"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=models.test", "-days", str(DAYS)]
    command += ["-addext", "subjectAltName=DNS:models.test", "-out", files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return {"listen_tls": f"127.0.0.1:{free_port()}", "tls_cert": files[0], "tls_key": files[1]}


def test_a_clock_that_jumps_moves_the_timestamps_and_nothing_else(patient, tmp_path, certificate):
    clock = Clock(tmp_path)
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=clock.prefix, **certificate)
        for hours in (0, 7, -5, 30, -48, 0):
            clock.jump(hours)
            expected = datetime.now(timezone.utc) + timedelta(hours=hours)
            seen = router.ask(b"%d" % hours)
            assert (seen.status, seen.body) == (200, b"%d" % hours)
            assert seen.seconds < 5
            line = router.logged(seen.id)
            assert line["Outcome"] == "served"
            started = datetime.fromisoformat(line["StartTime"].replace("Z", "+00:00"))
            assert abs(started - expected) < timedelta(minutes=1), f"the log follows the clock: {line}"
            durations = {name: value for name, value in line.items() if name.endswith("DurationMs")}
            assert durations and all(0 <= value < 5000 for value in durations.values()), line
            left = router.metric("scorefront_tls_certificate_expiry_days")
            assert abs(left - (DAYS - hours / 24)) < 0.1, f"days to expiry at {hours:+d} h: {left}"
        assert router.metric("scorefront_requests_total", outcome="served") == 6


def test_a_request_under_way_keeps_its_deadline_when_the_clock_jumps(patient, tmp_path):
    clock = Clock(tmp_path)

    def silent_while_the_clock_jumps(connection):
        take_request(connection)
        clock.jump(12)
        connection.recv(1)

    with Replica(silent_while_the_clock_jumps) as replica:
        annotations = {"request_timeout_ms": 1000, "on_abandon": "close"}
        router = patient([replica.place], prefix=clock.prefix, annotations=annotations)
        seen = router.ask()
        assert (seen.status, seen.code) == (504, "RequestTimeout")
        assert 0.9 < seen.seconds < 5, "neither at once nor hours later"
        line = router.logged(seen.id)
        assert line["Outcome"] == "replica_timeout" and 900 <= line["TotalDurationMs"] < 5000
        eventually(lambda: not router.remains(), "at rest")
