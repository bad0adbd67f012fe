"""The alerts and the dashboard: by their own unit tests, and in a real Prometheus that scrapes a router under load."""

import json

import pytest
import yaml
from metrics import ALERTS, DASHBOARD, INSTALL, Prometheus, alerts, filled, metrics_known, metrics_of, panels
from rendering import PLAIN, ROOT, rendered, run
from support.process import eventually, need
from support.router import Router
from traffic import Crowd, World

UNIT_TESTS = ROOT / "tests/deploy/alerts.test.yaml"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Has scraped a router whose clients wait, are refused, and meet replicas that fail."""
    folder = tmp_path_factory.mktemp("monitoring")
    world = World()
    started = [world]
    try:
        # Settings beside those that a router of the peers' tests has.
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SCOREFRONT_STATE_FILE", str(folder / "world.json"))
            router = Router(folder, world.objects)
        started.insert(0, router.process)
        running = Prometheus(folder, router.admin_url.removeprefix("http://"))
        started.insert(0, running.process)
        started.insert(0, Crowd(router))
        yield running
    finally:
        for each in started:
            each.stop()


def test_the_rules_are_valid():
    done = run(need("promtool", INSTALL), "check", "rules", "--lint-fatal", ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_where_it_should_and_is_quiet_beside_that():
    done = run(need("promtool", INSTALL), "test", "rules", UNIT_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = [check for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for check in test["alert_rule_test"]]
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    is_quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}
    assert fires == is_quiet == set(alerts())


def test_alerts_and_panels_name_only_metrics_that_exist():
    expressions = [rule["expr"] for rule in alerts().values()]
    expressions += [expression for _, them in panels() for expression in them]
    named = set().union(*map(metrics_of, expressions))
    assert named and not named - metrics_known()


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other():
    found = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken = set()
    for place in (panel["gridPos"] for panel in found):
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, place
        taken |= cells


def test_prometheus_takes_every_rule(prometheus):
    def evaluated():
        return [rule["name"] for rule in prometheus.rules() if rule["health"] == "ok"]

    eventually(lambda: set(evaluated()) == set(alerts()), lambda: f"evaluated without error: {evaluated()}", 20)


@pytest.mark.parametrize("title, expressions", panels(), ids=[title for title, _ in panels()])
def test_every_query_of_the_dashboard_has_data_after_load(prometheus, title, expressions):
    for expression in map(filled, expressions):
        assert "$" not in expression, f"a variable that Grafana would not know here: {expression}"
        eventually(lambda: prometheus.numbers(expression), f"{title} has data: {expression}", 30)


def test_the_load_was_the_one_that_the_dashboard_is_for(prometheus):
    met = ["served", "unauthorized", "unknown_endpoint", "unknown_deployment", "connect_failed", "replica_reset"]
    met += ["replica_timeout", "queue_timeout", "no_replica"]
    for outcome in met:
        expression = f'sum(scorefront_requests_total{{outcome="{outcome}"}}) > 0'
        eventually(lambda: prometheus.numbers(expression), f"requests ended as {outcome}", 20)
    eventually(lambda: prometheus.numbers("scorefront_ejections_total > 0"), "a replica was left out", 20)
    eventually(lambda: prometheus.numbers("max_over_time(scorefront_queued_requests[1m]) > 0"), "some waited", 20)


def test_grafana_gets_the_dashboard_and_prometheus_the_rules_of_the_files():
    objects = rendered({**PLAIN, "dashboard": {"enabled": True}, "alerts": {"enabled": True, "labels": {"a": "b"}}})
    dashboard = objects.one("ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["scorefront.json"]) == json.loads(DASHBOARD.read_text())
    rules = objects.one("PrometheusRule")
    assert rules["spec"] == yaml.safe_load(ALERTS.read_text())
    assert rules["metadata"]["labels"]["a"] == "b"


def test_the_link_to_the_runbook_can_lead_to_ones_own():
    own = {"alerts": {"enabled": True, "runbook": "https://wiki.example/scorefront"}}
    (group,) = rendered({**PLAIN, **own}).one("PrometheusRule")["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for rule in group["rules"]]
    assert all(link.startswith("https://wiki.example/scorefront#scorefront") for link in links)
