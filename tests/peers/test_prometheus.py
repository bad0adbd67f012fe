"""A real Prometheus scrapes the router; promtool reads its metrics."""

import json
import subprocess
import urllib.parse
import urllib.request

import pytest
import requests
from conftest import KEY, SETOSA
from support.process import Process, eventually, free_port, need

INSTALL = "apt-get install prometheus"

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: scorefront
  static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture(scope="module")
def query(router, tmp_path_factory):
    """Asks a running Prometheus, which has the router as its one target."""
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(target=router.admin_url.removeprefix("http://")))
    url = f"http://127.0.0.1:{free_port()}"
    arguments = [
        need("prometheus", INSTALL),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    prometheus = Process("prometheus", arguments, folder)

    def ask(expression):
        target = f"{url}/api/v1/query?query={urllib.parse.quote(expression)}"
        with urllib.request.urlopen(target, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    try:
        prometheus.wait_until_ready(f"{url}/-/ready")
        yield ask
    finally:
        prometheus.stop()


def test_prometheus_scrapes_the_router_and_counts_its_requests(router, query):
    eventually(lambda: query('up{job="scorefront"} == 1'), "the target is up")
    headers = {"Authorization": f"Bearer {KEY}", "azureml-model-deployment": "blue"}
    assert requests.post(router.scoring_uri("iris"), json=SETOSA, headers=headers, timeout=30).status_code == 200
    labels = {"endpoint": "iris", "deployment": "blue", "status": "200", "outcome": "served"}
    served = router.metric("scorefront_requests_total", **labels)
    assert served >= 1
    selector = ",".join(f'{name}="{value}"' for name, value in labels.items())
    eventually(
        lambda: [
            series for series in query(f"scorefront_requests_total{{{selector}}}") if float(series["value"][1]) >= served
        ],
        f"Prometheus has {served} requests of {selector}",
    )


def test_prometheus_computes_a_latency_quantile_from_the_buckets(router, query):
    headers = {"Authorization": f"Bearer {KEY}", "azureml-model-deployment": "blue"}
    assert requests.post(router.scoring_uri("iris"), json=SETOSA, headers=headers, timeout=30).status_code == 200
    expression = 'histogram_quantile(0.5, scorefront_request_duration_seconds_bucket{endpoint="iris",deployment="blue"})'
    result = eventually(
        lambda: [series for series in query(expression) if series["value"][1] != "NaN"], "a quantile is computed"
    )
    assert 0 < float(result[0]["value"][1]) < 30


def test_promtool_finds_nothing_to_complain_about(router):
    done = subprocess.run(
        [need("promtool", INSTALL), "check", "metrics"],
        input=router.metrics_text().encode(),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
