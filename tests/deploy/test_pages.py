"""The commands of the pages, as a shell reads them."""

import os
import re

import pytest
import yaml
from rendering import ROOT, Objects, run, tool

PAGES = ["README.md", "docs/install.md", "docs/migrate-from-azureml-fe.md", "docs/decisions/0013-chart.md"]


def installs():
    """Each `helm install`, with the lines that go on."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        for number, command in enumerate(re.findall(r"^\s*(helm install (?:.*\\\n)*.*)$", text, flags=re.MULTILINE)):
            # One that leaves out what was said before is no whole command.
            if "…" not in command:
                yield pytest.param(command, id=f"{page}-{number}")


@pytest.mark.parametrize("command", list(installs()))
def test_every_install_of_the_pages_is_taken_by_the_chart(command, tmp_path):
    shim = tmp_path / "helm"
    shim.write_text(f'#!/bin/sh\nshift\nexec {tool("helm")} template --kube-version 1.37 "$@"\n')
    shim.chmod(0o755)
    done = run("env", f"PATH={tmp_path}:{os.environ['PATH']}", "bash", "-c", f"cd {ROOT} && {command}")
    assert done.returncode == 0, done.stderr
    objects = Objects(done.stdout)
    assert [argument for argument in objects.arguments if argument.startswith("--namespace=")] == ["--namespace=models"]


def test_there_are_such_commands():
    assert len(list(installs())) >= 4


def test_values_that_the_install_page_names_exist():
    values = yaml.safe_load((ROOT / "deploy/chart/values.yaml").read_text())
    page = (ROOT / "docs/install.md").read_text()
    table = page.split("## Values")[1].split("\n## ")[0]
    for name in re.findall(r"`([a-zA-Z.*]+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE))):
        place = values
        for part in name.removesuffix(".*").split("."):
            assert part in place, f"docs/install.md names {name}"
            place = place[part]
