"""A real Prometheus with the rules of the chart, and the expressions of the dashboard and of the alerts."""

import json
import re
import urllib.parse
import urllib.request

import yaml
from rendering import CHART, ROOT
from support.process import Process, free_port, need

ALERTS = CHART / "files/alerts.yaml"
DASHBOARD = CHART / "files/dashboard.json"
INSTALL = "apt-get install prometheus"

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
- job_name: scorefront
  static_configs: [{{targets: ["{target}"]}}]
"""

# What Grafana puts in for its variables, where a scrape comes each second.
VARIABLES = {"$endpoint": ".*", "$deployment": ".*", "$__rate_interval": "10s"}


def alerts():
    """The rules by name."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels():
    """Title and expressions of each panel of the dashboard."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (panel["title"], [target["expr"] for target in panel["targets"]]) for panel in found if panel["type"] != "row"
    ]


def filled(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def metrics_of(expression):
    """The names of the router's metrics in an expression, those of histograms without their ends."""
    without_strings = re.sub(r'"[^"]*"', "", expression)
    names = re.findall(r"\b(?:scorefront|process)_[a-z_]+", without_strings)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def metrics_known():
    """The names of the contract."""
    lines = (ROOT / "tests/contract/metrics.txt").read_text().splitlines()
    return {re.split(r"[ {]", line)[1] for line in lines if line}


class Prometheus:
    """A running one, which scrapes one router each second."""

    def __init__(self, folder, target):
        configuration = folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(rules=ALERTS, target=target))
        self.url = f"http://127.0.0.1:{free_port()}"
        arguments = [
            need("prometheus", INSTALL),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self.process = Process("prometheus", arguments, folder)
        self.process.wait_until_ready(f"{self.url}/-/ready")

    def asked(self, path):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def numbers(self, expression):
        """The values of an expression now, without those that are no number."""
        found = self.asked(f"query?query={urllib.parse.quote(expression)}")["result"]
        return [series["value"][1] for series in found if series["value"][1] != "NaN"]

    def rules(self):
        return [rule for group in self.asked("rules")["groups"] for rule in group["rules"]]
