"""The scoring call of azure-ai-ml, its own code, with a control plane that only knows what the test tells it."""

import json
from types import SimpleNamespace

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.constants._endpoint import EndpointInvokeFields
from azure.ai.ml.entities import EndpointAuthKeys
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from conftest import KEY, SETOSA


class NoCredential:
    def get_token(self, *scopes, **options):
        raise AssertionError("scoring needs no token of the control plane")


class ControlPlane:
    """What `invoke` asks of Azure Resource Manager: the endpoint, its keys, its deployments."""

    def __init__(self, scoring_uri, key, deployments):
        self.scoring_uri, self.key, self.deployments = scoring_uri, key, deployments

    def get(self, **_):
        return SimpleNamespace(properties=SimpleNamespace(auth_mode="Key", scoring_uri=self.scoring_uri))

    def list_keys(self, **_):
        return EndpointAuthKeys(primary_key=self.key, secondary_key="")

    def list(self, **_):
        return self.deployments


@pytest.fixture
def invoke(router, tmp_path, monkeypatch):
    # The client keeps its headers in one dictionary of the module and so sends what an earlier call left in it.
    monkeypatch.setattr(EndpointInvokeFields, "DEFAULT_HEADER", {"Content-Type": "application/json"})
    client = MLClient(NoCredential(), "00000000-0000-0000-0000-000000000000", "group", "workspace", enable_telemetry=False)
    request_file = tmp_path / "request.json"

    def call(endpoint, order, key=KEY, deployments=("blue", "green"), **options):
        request_file.write_text(json.dumps(order))
        control_plane = ControlPlane(router.scoring_uri(endpoint), key, deployments)
        operations = client.online_endpoints
        monkeypatch.setattr(operations, "_online_operation", control_plane)
        monkeypatch.setattr(operations, "_online_deployment_operation", control_plane)
        return operations.invoke(endpoint, request_file=str(request_file), **options)

    return call


def test_invoke_scores(invoke):
    assert json.loads(invoke("iris", SETOSA)) == {"species": ["setosa"]}


def test_invoke_reaches_the_deployment_that_it_names(invoke, router):
    before = router.metric("scorefront_requests_total", endpoint="iris", deployment="green")
    for count in range(1, 4):
        assert json.loads(invoke("iris", SETOSA, deployment_name="green")) == {"species": ["setosa"]}
        assert router.metric("scorefront_requests_total", endpoint="iris", deployment="green") == before + count


def test_invoke_understands_a_refused_key(invoke):
    with pytest.raises(ClientAuthenticationError) as refusal:
        invoke("iris", SETOSA, key="wrong")
    assert refusal.value.status_code == 401


def test_invoke_understands_an_endpoint_that_is_gone(invoke):
    with pytest.raises(ResourceNotFoundError) as refusal:
        invoke("tulip", SETOSA)
    assert refusal.value.status_code == 404


def test_a_deployment_name_left_from_an_earlier_call_is_a_clear_404(invoke):
    invoke("iris", SETOSA, deployment_name="green")
    # Its own bug: no name is given here, and it sends "green" to an endpoint that has no such deployment.
    with pytest.raises(ResourceNotFoundError) as refusal:
        invoke("moody", {})
    body = json.loads(refusal.value.response.text())
    assert body["error"]["code"] == "UnknownDeployment" and "green" in body["error"]["message"]


def test_invoke_reports_a_raising_script_once(invoke, router):
    before = router.metric("scorefront_requests_total", endpoint="moody", outcome="model_error")
    with pytest.raises(HttpResponseError) as failure:
        invoke("moody", {"raise": "no such species"})
    assert failure.value.status_code == 502
    assert "unexpected error occurred in scoring script" in failure.value.response.text()
    after = router.metric("scorefront_requests_total", endpoint="moody", outcome="model_error")
    assert after == before + 1, "502 without Retry-After is not sent again"
