"""The runbook has an entry for each alert and each status, and the alerts lead there."""

import re

from metrics import alerts, panels
from rendering import ROOT

RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def sections():
    """What the runbook says under each heading of the third level."""
    parts = re.split(r"^### (.+)$", RUNBOOK, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def statuses():
    """The statuses of the router's own answers, as the page on status codes has them."""
    table = (ROOT / "docs/status-codes.md").read_text().split("<!-- outcomes: begin -->")[1]
    table = table.split("<!-- outcomes: end -->")[0]
    return set(re.findall(r"^\| `\w+` \| (\d{3}) \|", table, flags=re.MULTILINE)) - {"200"}


def test_each_alert_leads_to_its_entry_and_each_entry_is_an_alerts():
    titles = {title for title in sections() if not title.isdigit()}
    assert titles == set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_an_entry_says_how_grave_the_alert_is_and_what_to_do():
    for name, rule in alerts().items():
        text = sections()[name].strip()
        assert text.startswith({"critical": "Critical. ", "warning": "Warning. "}[rule["labels"]["severity"]]), name
        assert "**Look**" in text and "**Do**" in text, name


def test_each_status_has_an_entry():
    assert len(statuses()) > 8
    assert statuses() == {title for title in sections() if title.isdigit()}
    for status in statuses():
        assert "**Cause**" in sections()[status] and "**Do**" in sections()[status], status


def test_each_alert_says_what_and_how_grave():
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert all(rule["annotations"].get(key) for key in ("summary", "description")), name


def test_panels_that_the_runbook_names_are_on_the_dashboard():
    named = {re.sub(r"\s+", " ", title) for title in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK)}
    assert named and not named - {title for title, _ in panels()}
