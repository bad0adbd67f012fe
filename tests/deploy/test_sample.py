"""The sample model of the install page: what the router makes of it, and whether its server answers."""

import json
import os
import sys

import kubernetes_validate
import requests
import yaml
from rendering import ROOT, run
from support.process import Process, free_port
from support.router import binary

SAMPLE = ROOT / "deploy/sample/model.yaml"


def objects():
    return {document["kind"]: document for document in yaml.safe_load_all(SAMPLE.read_text())}


def test_the_router_serves_the_sample_without_a_complaint():
    done = run(binary(), "check", "--source", f"manifests:{SAMPLE.parent}")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("endpoint")]
    assert "blue" in row and "2 keys" in row and "1000 for 5000 ms" in row


def test_the_server_of_the_sample_answers_as_the_page_shows(tmp_path):
    script = tmp_path / "model.py"
    script.write_text(objects()["ConfigMap"]["data"]["model.py"])
    port = free_port()
    environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(port)}
    server = Process("model", [sys.executable, script], tmp_path, environment)
    try:
        server.wait_until_ready(f"http://127.0.0.1:{port}/")
        url = f"http://127.0.0.1:{port}/score"
        answer = requests.post(url, json={"data": [[5.1, 3.5, 1.4, 0.2]]}, timeout=10)
    finally:
        server.child.terminate()
        server.child.wait(10)
    assert answer.json() == {"species": ["setosa"]}
    assert json.dumps(answer.json()) in (ROOT / "docs/install.md").read_text()


def test_the_sample_has_the_schema_of_kubernetes():
    for object in objects().values():
        kubernetes_validate.validate(object, "1.37", strict=True)
