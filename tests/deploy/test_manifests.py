"""The manifests for people without Helm, the ingresses, and what linters say of all of it."""

import kubernetes_validate
import pytest
import yaml
from rendering import PLAIN, ROOT, TLS, Objects, rendered, run, tool

MANIFESTS = ROOT / "deploy/manifests"
INGRESSES = sorted((ROOT / "deploy/ingress").glob("*.yaml"))

# The newest one, and two before it: what Azure ML supports.
VERSIONS = ["1.35", "1.36", "1.37"]

EVERYTHING = {
    **TLS,
    "allowInsecureConnections": True,
    "autoscaling": {"enabled": True},
    "spreadOverNodes": "hard",
    "dashboard": {"enabled": True},
    "openshift": {"bindSecurityContextConstraint": True},
    "service": {"nodePorts": {"http": 30080, "https": 30443}, "loadBalancerSourceRanges": ["192.0.2.0/24"]},
    "inferenceRouterServiceType": "loadBalancer",
}

# Advice that does not fit: each with its reason.
UNFIT = {
    "container-image-pull-policy": "tags are not moved; pulling each time makes a start depend on the registry",
    "container-ephemeral-storage-request-and-limit": "the volume has a limit; the log on standard output is the node's",
    "deployment-has-host-podantiaffinity": "topology spread does it, so that small clusters have no Pending pods",
}


def test_the_manifests_are_what_the_chart_renders(tmp_path):
    done = run("env", f"HELM={tool('helm')}", MANIFESTS / "render", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ["test.yaml", "production.yaml"]:
        same = (tmp_path / name).read_text() == (MANIFESTS / name).read_text()
        assert same, (
            f"deploy/manifests/{name} is not what the chart renders: HELM=target/tools/helm deploy/manifests/render"
        )


def test_the_manifests_have_one_router_for_tests_and_three_with_tls_for_production():
    test, production = (Objects((MANIFESTS / f"{name}.yaml").read_text()) for name in ["test", "production"])
    assert test.one("Deployment")["spec"]["replicas"] == 1
    assert production.one("Deployment")["spec"]["replicas"] == 3
    assert [port["port"] for port in test.one("Service")["spec"]["ports"]] == [80]
    assert [port["port"] for port in production.one("Service")["spec"]["ports"]] == [80, 443]
    # Nothing that needs more than a bare cluster.
    assert not [object["apiVersion"] for object in test.all + production.all if "coreos" in object["apiVersion"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [PLAIN, TLS, EVERYTHING], ids=["plain", "tls", "everything"])
def test_every_object_has_the_schema_of_every_supported_version(version, values):
    for object in rendered(values, "--kube-version", version).all:
        kubernetes_validate.validate(object, version, strict=True)


def test_the_schemas_do_find_a_mistake():
    (deployment,) = rendered(PLAIN).named("Deployment").values()
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("values", [PLAIN, TLS, EVERYTHING], ids=["plain", "tls", "everything"])
def test_the_linter_has_no_complaint(values):
    ignored = [part for advice in UNFIT for part in ("--ignore-test", advice)]
    done = run(tool("kube-score"), "score", "-", "--output-format", "ci", *ignored, stdin=rendered(values).text)
    found = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    assert done.returncode == 0 and not found, "\n".join(found) + done.stderr
    assert "[OK]" in done.stdout


def test_there_are_four_ingresses_to_the_service_of_the_chart():
    assert [path.stem for path in INGRESSES] == [
        "application-gateway-http",
        "application-gateway-https",
        "nginx-http",
        "nginx-https",
    ]
    (service,) = rendered(PLAIN).named("Service").values()
    ports = [port["port"] for port in service["spec"]["ports"]]
    for path in INGRESSES:
        (ingress,) = yaml.safe_load_all(path.read_text())
        kubernetes_validate.validate(ingress, VERSIONS[-1], strict=True)
        assert (ingress["metadata"]["namespace"], ingress["metadata"]["name"]) == ("azureml", "azureml-fe")
        assert ("tls" in ingress["spec"]) == path.stem.endswith("https")
        classes = {"nginx": "nginx", "application-gateway": "azure-application-gateway"}
        assert ingress["spec"]["ingressClassName"] == classes[path.stem.rpartition("-")[0]]
        annotations = ingress["metadata"]["annotations"]
        if "nginx" in path.stem:
            # With it off, nginx could not send a request to another router: the drains were tested with the default.
            assert "nginx.ingress.kubernetes.io/proxy-request-buffering" not in annotations
        else:
            # The port without TLS, as the pod has it. Otherwise the gateway would ask at the admin port.
            (port,) = [port for port in rendered(PLAIN).container["ports"] if port["name"] == "http"]
            assert annotations["appgw.ingress.kubernetes.io/backend-protocol"] == "http"
            assert annotations["appgw.ingress.kubernetes.io/health-probe-path"] == "/"
            assert annotations["appgw.ingress.kubernetes.io/health-probe-port"] == str(port["containerPort"])
        (rule,) = ingress["spec"]["rules"]
        (route,) = rule["http"]["paths"]
        assert (route["path"], route["pathType"]) == ("/", "Prefix")
        assert route["backend"]["service"]["name"] == service["metadata"]["name"]
        assert route["backend"]["service"]["port"]["number"] in ports
        assert [rule["host"]] == ingress["spec"]["tls"][0]["hosts"] if "tls" in ingress["spec"] else "host" not in rule
