"""What the chart refuses, and how it says so."""

import json
import os
import re

import pytest
import yaml
from rendering import CHART, CHOSEN, PLAIN, ROOT, TLS, Objects, refusal, rendered, run, template, tool

SCHEMA = CHART / "values.schema.json"

# Settings that the chart makes itself, out of other values.
OWN_SETTINGS = {"listen", "admin", "source", "namespace", "kubeconfig", "drain-grace-ms", "drain-timeout-ms"}
OWN_SETTINGS |= {"listen-tls", "tls-secret", "tls-cert", "tls-key", "redirect-to-https", "state-file"}


def test_an_install_without_tls_and_without_consent_to_go_without_is_refused_with_both_ways_out():
    said = refusal(CHOSEN)
    assert "neither sslSecret nor allowInsecureConnections is set" in said
    assert "make a Secret in namespace azureml with cert.pem and key.pem, and set sslSecret" in said
    assert "set allowInsecureConnections=true" in said


def test_everything_that_is_missing_is_told_at_once():
    said = refusal({})
    for choice in ["image.repository", "sslSecret", "allowInsecureConnections", "modelNamespaces={models}"]:
        assert choice in said
    assert "allowReadingAllSecretsOfTheCluster=true" in said and "every Secret of the cluster" in said


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"sslsecret": "certificate"}, "additional properties 'sslsecret' not allowed"),
        ({"AllowInsecureConnections": True}, "additional properties 'AllowInsecureConnections' not allowed"),
        ({"inferenceRouterHa": True}, "additional properties 'inferenceRouterHa' not allowed"),
        ({"scoringFE": {}}, "additional properties 'scoringFE' not allowed"),
        ({"scoringFe": {"resource": {}}}, "at '/scoringFe': additional properties 'resource' not allowed"),
        ({"enableTraining": True}, "additional properties 'enableTraining' not allowed"),
        ({"settings": {"max-atempts": 2}}, "at '/settings': additional properties 'max-atempts' not allowed"),
        ({"settings": {"max-attempts": 0}}, "at '/settings/max-attempts': minimum: got 0, want 1"),
        ({"settings": {"listen": "0.0.0.0:80"}}, "at '/settings': additional properties 'listen' not allowed"),
        ({"inferenceRouterServiceType": "LoadBalancer"}, "at '/inferenceRouterServiceType': value must be one of"),
        ({"inferenceRouterHA": "yes"}, "at '/inferenceRouterHA': value must be one of"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"modelNamespaces": ["Models"]}, "at '/modelNamespaces/0': 'Models' does not match pattern"),
        ({"modelNamespaces": ["models", "models"]}, "at '/modelNamespaces': items at 0 and 1 are equal"),
        ({"stateFile": {"sizeLimit": "64MB"}}, "at '/stateFile/sizeLimit': '64MB' does not match pattern"),
        ({"metrics": {"interval": "1.5m"}}, "at '/metrics/interval': '1.5m' does not match pattern"),
        ({"redirectToHttps": "true"}, "at '/redirectToHttps': got string, want boolean"),
        ({"spreadOverNodes": "Hard"}, "at '/spreadOverNodes': value must be one of 'soft', 'hard'"),
    ],
)
def test_an_unknown_or_wrongly_cased_key_or_value_is_refused_by_its_name(wrong, told):
    assert told in refusal({**PLAIN, **wrong})


@pytest.mark.parametrize(
    "contradiction, told",
    [
        ({"allowReadingAllSecretsOfTheCluster": True}, "both modelNamespaces and allowReadingAllSecretsOfTheCluster"),
        ({"internalLoadBalancerProvider": "azure"}, "Set inferenceRouterServiceType=loadBalancer"),
        ({"podLabels": {"azuremlappname": "own"}}, "podLabels.azuremlappname is set, but that label is"),
        ({"podLabels": {"app.kubernetes.io/name": "own"}}, "podLabels.app.kubernetes.io/name is set, but"),
        ({"service": {"externalTrafficPolicy": "Local"}}, "service.externalTrafficPolicy is Local, but"),
        ({"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}, "service.loadBalancerSourceRanges are set, but"),
        (
            {"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}, "inferenceRouterServiceType": "nodePort"},
            "Set inferenceRouterServiceType=loadBalancer, or leave the ranges out",
        ),
        ({"service": {"nodePorts": {"http": 30080}}}, "service.nodePorts are set, but"),
        ({"autoscaling": {"enabled": True, "maxReplicas": 2}}, "autoscaling.maxReplicas is 2, below the 3 replicas"),
    ],
)
def test_values_that_do_not_go_together_are_refused(contradiction, told):
    assert told in refusal({**PLAIN, **contradiction})


def test_an_old_version_of_kubernetes_is_refused():
    assert "incompatible with Kubernetes v1.29" in refusal(PLAIN, "--kube-version", "1.29")


def test_the_texts_true_and_false_of_the_extensions_command_line_are_understood():
    ways = ["allowInsecureConnections=True", "inferenceRouterHA=False", "inferenceRouterServiceType=nodePort"]
    objects = rendered(CHOSEN, *[part for way in ways for part in ("--set", way)])
    assert "--listen=0.0.0.0:8080" in objects.arguments
    assert objects.one("Deployment")["spec"]["replicas"] == 1
    said = refusal(CHOSEN, "--set", "allowInsecureConnections=False")
    assert "neither sslSecret nor allowInsecureConnections" in said


def setting_schemas():
    """What the schema should say of each setting, after the router's own table of them."""
    for line in (ROOT / "tests/contract/settings.txt").read_text().splitlines():
        key, _, allowed = line.split(" | ", 2)
        is_list, key = key.endswith(" (list)"), key.removesuffix(" (list)")
        limits = re.match(r"(\d+) to (\d+)\b", allowed)
        if key in OWN_SETTINGS:
            continue
        elif key == "tls-min-version":
            # Without quotes it is a number.
            yield key, {"enum": ["1.2", "1.3", 1.2, 1.3, None]}
        elif limits:
            yield key, {"type": ["integer", "null"], "minimum": int(limits[1]), "maximum": int(limits[2])}
        elif allowed == "true or false":
            yield key, {"type": ["boolean", "null"]}
        elif is_list:
            yield key, {"type": ["string", "array", "null"], "items": {"type": "string"}}
        elif re.search(r"\boff\b", allowed):
            # Without quotes it is false.
            yield key, {"anyOf": [{"type": ["string", "null"]}, {"const": False}]}
        else:
            yield key, {"type": ["string", "null"]}


def test_the_schema_knows_every_setting_of_the_router_with_its_range():
    """SCOREFRONT_BLESS=1 writes the schema anew, as it does for the other contracts."""
    schema = json.loads(SCHEMA.read_text())
    settings = schema["properties"]["settings"]
    expected = dict(setting_schemas())
    if "SCOREFRONT_BLESS" in os.environ:
        settings["properties"] = expected
        SCHEMA.write_text(json.dumps(schema, indent=2) + "\n")
    assert settings["properties"] == expected, f"{SCHEMA}: SCOREFRONT_BLESS=1 writes it anew, then read the difference"
    assert settings["additionalProperties"] is False


def test_every_default_value_is_in_the_schema_and_the_other_way_round():
    def keys(schema, path=""):
        for key, inner in schema.get("properties", {}).items():
            yield f"{path}{key}"
            yield from keys(inner, f"{path}{key}.")

    def defaults(values, path=""):
        for key, value in values.items():
            yield f"{path}{key}"
            if isinstance(value, dict):
                yield from defaults(value, f"{path}{key}.")

    free = ("settings.", "scoringFe.resources.", "dashboard.labels.", "global")
    schema = {key for key in keys(json.loads(SCHEMA.read_text())) if not key.startswith(free)}
    values = {key for key in defaults(yaml.safe_load((CHART / "values.yaml").read_text())) if not key.startswith(free)}
    assert schema == values


@pytest.mark.parametrize("values", [PLAIN, TLS], ids=["plain", "tls"])
def test_helm_lint_has_no_complaint(values, tmp_path):
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    done = run(tool("helm"), "lint", "--strict", "--kube-version", "1.37", CHART, "--values", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout, done.stdout


def test_off_is_understood_without_quotes_and_true_is_refused():
    words = [key for key, schema in setting_schemas() if "anyOf" in schema]
    assert "proxy-protocol" in words
    arguments = Objects(template({**PLAIN, "settings": dict.fromkeys(words, False)}).stdout).arguments
    assert [f"--{key}=off" for key in words if f"--{key}=off" not in arguments] == []
    for key in words:
        assert key in refusal({**PLAIN, "settings": {key: True}})


def test_a_large_number_from_a_file_is_not_written_with_an_exponent():
    done = template({**PLAIN, "settings": {"max-body-bytes": 1099511627776, "trusted-proxies": ["10.0.0.0/8", "::1"]}})
    arguments = Objects(done.stdout).arguments
    assert "--max-body-bytes=1099511627776" in arguments
    assert [argument for argument in arguments if "trusted" in argument] == [
        "--trusted-proxies=10.0.0.0/8",
        "--trusted-proxies=::1",
    ]
