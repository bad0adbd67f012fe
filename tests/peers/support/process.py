"""Processes that a test starts, and how to wait for them without sleeping blindly."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 10


def eventually(condition, what, seconds=10.0):
    """Polls until `condition()` gives something true, and gives that; fails with `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def free_port():
    """A port of loopback that was free a moment ago: for peers that cannot tell which port they were given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url):
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def need(program, install):
    """The path of a program; a missing one fails the test with the command that installs it."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    assert found, f"{program} is missing: {install}"
    return found


class Process:
    """A child with its output in a file. `stop` ends it, gently first."""

    def __init__(self, name, arguments, folder, environment=None):
        self.name = name
        self.output = Path(folder) / f"{name}.out"
        with self.output.open("wb") as output:
            self.child = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
            )

    def wait_until_ready(self, url):
        def ready():
            code = self.child.poll()
            assert code is None, f"{self.name} ended with {code} before it was ready:\n{self.printed()}"
            return answers(url)

        eventually(ready, lambda: f"{self.name} does not answer {url} with 200:\n{self.printed()}", START_SECONDS_MAX)

    def printed(self):
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-40:])

    def stop(self):
        """Ends it and gives its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"{self.name} did not end within {STOP_SECONDS_MAX} s:\n{self.printed()}") from None
