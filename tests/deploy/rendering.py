"""The chart through the real helm, and its objects by kind and name."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/chart"
NAMESPACE = "azureml"

# What every install has to choose.
CHOSEN = {"image": {"repository": "registry.example/scorefront"}, "modelNamespaces": ["models"]}
PLAIN = {**CHOSEN, "allowInsecureConnections": True}
TLS = {**CHOSEN, "sslSecret": "certificate"}


def tool(name):
    path = Path(os.environ.get("DEPLOY_TOOLS", ROOT / "target/tools")) / name
    assert path.is_file(), f"{path} is missing: bash .ci/run deploy builds it"
    return str(path)


def run(*arguments, stdin=""):
    return subprocess.run(
        [str(argument) for argument in arguments], input=stdin, capture_output=True, text=True, timeout=120
    )


def template(values, *arguments):
    """What `helm template` does with these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        return run(
            tool("helm"), "template", "scorefront", CHART, "--namespace", NAMESPACE, "--kube-version", "1.37",
            "--values", file.name, *arguments,
        )  # fmt: skip


def refusal(values, *arguments):
    """The message with which an install is refused."""
    done = template(values, *arguments)
    assert done.returncode != 0, f"was not refused:\n{done.stdout}"
    return done.stderr


class Objects:
    """The rendered objects."""

    def __init__(self, text):
        self.text = text
        self.all = [document for document in yaml.safe_load_all(text) if document]

    def named(self, kind):
        """Those of one kind, by namespace and name."""
        found = [document for document in self.all if document["kind"] == kind]
        return {(document["metadata"].get("namespace"), document["metadata"]["name"]): document for document in found}

    def one(self, kind, name=None):
        found = [object for (_, its), object in self.named(kind).items() if name in (None, its)]
        assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
        return found[0]

    def kinds(self):
        return {document["kind"] for document in self.all}

    @property
    def pod(self):
        return self.one("Deployment")["spec"]["template"]

    @property
    def container(self):
        (container,) = self.pod["spec"]["containers"]
        return container

    @property
    def arguments(self):
        return self.container["args"]


def rendered(values, *arguments):
    done = template(values, *arguments)
    assert done.returncode == 0, done.stderr
    return Objects(done.stdout)
