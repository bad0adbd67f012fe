"""The conformance tests of HTTP/2, with TLS and without."""

import os
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def failures(folder, *arguments):
    """How many tests there were, and the names of those that failed."""
    program = Path(os.environ.get("H2SPEC", ROOT / "target/tools/h2spec"))
    assert program.is_file(), f"{program} is missing: bash .ci/run tls builds it"
    report = folder / "report.xml"
    subprocess.run(
        [program, "--host", "127.0.0.1", "--timeout", "10", "--junit-report", report, *map(str, arguments)],
        capture_output=True,
        timeout=600,
    )
    cases = list(xml.parse(report).iter("testcase"))
    assert not [case for case in cases if case.find("skipped") is not None]
    return len(cases), [case.get("classname") for case in cases if case.find("failure") is not None]


@pytest.mark.parametrize("with_tls", [True, False])
def test_http2_is_spoken_as_it_is_specified(start, authority, tmp_path, with_tls):
    router = start(*authority.issue("h2"))
    port = ["--tls", "--insecure", "--port", router.port] if with_tls else ["--port", router.plain_port]
    count, failed = failures(tmp_path, *port)
    assert count >= 140
    # A client that does not open with the preface is taken for one of HTTP/1 where both are spoken: it gets a 400 in
    # that language, and the end of the connection.
    allowed = [] if with_tls else ["Sends invalid connection preface"]
    assert failed == allowed or failed == []
