"""The router under test: the built binary on manifests, its log and its metrics."""

import json
import os
import urllib.request
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from .process import Process, eventually, free_port

ROOT = Path(__file__).resolve().parents[3]


def binary():
    path = Path(os.environ.get("SCOREFRONT_BIN", ROOT / "target/debug/scorefront"))
    assert path.is_file(), f"{path} is missing: cargo build, or set SCOREFRONT_BIN"
    return path.resolve()


class Router:
    """A running `scorefront serve`, with other settings where they are said.

    `prefix` is a command that becomes the router, such as `env` or `unshare`.
    """

    def __init__(self, folder, objects, prefix=(), **settings):
        self.folder = Path(folder)
        source = self.folder / "manifests"
        source.mkdir()
        (source / "all.yaml").write_text(yaml.safe_dump_all(objects))
        self.access_log = self.folder / "access.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.admin_url = f"http://127.0.0.1:{free_port()}"
        usual = {
            "listen": self.url.removeprefix("http://"),
            "admin": self.admin_url.removeprefix("http://"),
            "source": f"manifests:{source}",
            "access_log": self.access_log,
            "workers": 2,
            "drain_grace_ms": 100,
        }
        arguments = [binary(), "serve"]
        for name, value in (usual | settings).items():
            arguments += [f"--{name.replace('_', '-')}", value]
        self.process = Process("scorefront", [*prefix, *arguments], folder)
        try:
            self.process.wait_until_ready(f"{self.admin_url}/readyz")
        except BaseException:
            self.process.stop()
            raise

    def scoring_uri(self, endpoint):
        return f"{self.url}/api/v1/endpoint/{endpoint}/score"

    def logged(self, request_id):
        """The one line of the access log about a request."""

        def found():
            text = self.access_log.read_text() if self.access_log.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            lines = [json.loads(line) for line in whole.splitlines()]
            return [line for line in lines if line["XRequestId"] == request_id]

        lines = eventually(found, f"request {request_id} is not in the access log")
        assert len(lines) == 1, f"request {request_id} was logged {len(lines)} times"
        return lines[0]

    def metrics_text(self):
        with urllib.request.urlopen(f"{self.admin_url}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name, **labels):
        """The sum of the samples of that name with these labels; 0 where there are none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.metrics_text())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
