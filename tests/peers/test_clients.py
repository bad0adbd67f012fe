"""Real clients: curl, requests and httpx, over HTTP/1.1 and HTTP/2."""

import json
import subprocess

import httpx
import pytest
import requests
from conftest import KEY, OTHER_KEY, SETOSA
from support.process import need

JSON = {"Content-Type": "application/json"}


def run_curl(url, body, headers, *options):
    """The status, the headers and the body that curl got."""
    curl = need("curl", "apt-get install curl")
    arguments = [curl, "--silent", "--show-error", "--max-time", "30", "--data-binary", "@-", *options, url]
    for name, value in headers.items():
        arguments += ["--header", f"{name}: {value}"]
    arguments += ["--output", "-", "--write-out", "\x1e%{http_code}\x1e%{header_json}"]
    done = subprocess.run(arguments, input=body, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    body, status, head = done.stdout.decode().split("\x1e")
    return int(status), {name: values[0] for name, values in json.loads(head).items()}, body


def ask_with_curl(url, body, headers):
    return run_curl(url, body, headers, "--http1.1")


def ask_with_curl_h2(url, body, headers):
    return run_curl(url, body, headers, "--http2-prior-knowledge")


def ask_with_requests(url, body, headers):
    answer = requests.post(url, data=body, headers=headers, timeout=30)
    return answer.status_code, answer.headers, answer.text


def ask_with_httpx(url, body, headers):
    with httpx.Client(timeout=30, trust_env=False) as client:
        answer = client.post(url, content=body, headers=headers)
    assert answer.http_version == "HTTP/1.1"
    return answer.status_code, answer.headers, answer.text


def ask_with_httpx_h2(url, body, headers):
    with httpx.Client(http1=False, http2=True, timeout=30, trust_env=False) as client:
        answer = client.post(url, content=body, headers=headers)
    assert answer.http_version == "HTTP/2"
    return answer.status_code, answer.headers, answer.text


@pytest.fixture(
    params=[ask_with_curl, ask_with_curl_h2, ask_with_requests, ask_with_httpx, ask_with_httpx_h2],
    ids=lambda ask: ask.__name__.removeprefix("ask_with_"),
)
def ask(request):
    return request.param


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["primary", "secondary"])
def test_either_key_scores(ask, router, setosa, key):
    status, headers, body = ask(router.scoring_uri("iris"), setosa, JSON | {"Authorization": f"Bearer {key}"})
    assert (status, json.loads(body)) == (200, {"species": ["setosa"]})
    assert router.logged(headers["x-request-id"])["AuthType"] == "key"


@pytest.mark.parametrize("name", ["green", "blue", "GREEN"])
def test_a_client_chooses_its_deployment_without_regard_to_case(ask, router, setosa, name):
    headers = JSON | {"Authorization": f"Bearer {KEY}", "azureml-model-deployment": name}
    status, headers, _ = ask(router.scoring_uri("iris"), setosa, headers)
    assert (status, headers["azureml-model-deployment"]) == (200, name.lower())
    assert router.logged(headers["x-request-id"])["DeploymentName"] == name.lower()


def refused(router, answer, status, code):
    got, headers, body = answer
    error = json.loads(body)["error"]
    assert (got, error["code"]) == (status, code)
    assert error["requestId"] == headers["x-request-id"]
    assert router.logged(error["requestId"])["ResponseCode"] == status
    return error["message"]


def test_a_wrong_or_missing_key_is_refused(ask, router, setosa):
    url = router.scoring_uri("iris")
    refused(router, ask(url, setosa, JSON | {"Authorization": f"Bearer {KEY}x"}), 401, "Unauthorized")
    message = refused(router, ask(url, setosa, JSON), 401, "Unauthorized")
    assert "Unauthorized, no Auth Header" in message


def test_an_unknown_endpoint_or_deployment_is_named(ask, router, setosa):
    authorized = JSON | {"Authorization": f"Bearer {KEY}"}
    message = refused(router, ask(router.scoring_uri("tulip"), setosa, authorized), 404, "UnknownEndpoint")
    assert "tulip" in message
    headers = authorized | {"azureml-model-deployment": "red"}
    message = refused(router, ask(router.scoring_uri("iris"), setosa, headers), 404, "UnknownDeployment")
    assert "red" in message


def test_a_large_body_arrives_whole(ask, router):
    body = json.dumps({"padding": "x" * 3_000_000}).encode()
    status, headers, answer = ask(router.scoring_uri("moody"), body, JSON)
    assert (status, json.loads(answer)["length"]) == (200, len(body))
    assert router.logged(headers["x-request-id"])["RequestPayloadSize"] == len(body)


def test_curl_waits_for_100_continue_and_gets_it(router, tmp_path):
    body = b" " * 2_000_000
    heads = tmp_path / "heads"
    options = ["--http1.1", "--expect100-timeout", "20", "--dump-header", str(heads)]
    status, _, answer = run_curl(router.scoring_uri("moody"), body + b"{}", JSON | {"Expect": "100-continue"}, *options)
    assert (status, json.loads(answer)["length"]) == (200, len(body) + 2)
    assert heads.read_text().startswith("HTTP/1.1 100 ")


def test_a_requests_session_keeps_its_connection(router, setosa):
    before = router.metric("scorefront_connections_accepted_total")
    with requests.Session() as session:
        for _ in range(5):
            answer = session.post(
                router.scoring_uri("iris"), data=setosa, headers=JSON | {"Authorization": f"Bearer {KEY}"}, timeout=30
            )
            assert answer.status_code == 200, answer.text
            assert answer.headers.get("connection", "").lower() != "close", "the replica's close is not the client's"
    assert router.metric("scorefront_connections_accepted_total") == before + 1


def test_one_http2_connection_carries_many_requests_at_once(router, setosa):
    import asyncio

    async def ask_all():
        async with httpx.AsyncClient(http1=False, http2=True, timeout=30, trust_env=False) as client:
            one = lambda: client.post(  # noqa: E731
                router.scoring_uri("iris"), content=setosa, headers=JSON | {"Authorization": f"Bearer {KEY}"}
            )
            return await asyncio.gather(*(one() for _ in range(30)))

    answers = asyncio.run(ask_all())
    assert [answer.status_code for answer in answers] == [200] * 30
    assert len({answer.headers["x-request-id"] for answer in answers}) == 30


def test_the_root_is_healthy_without_a_key(router):
    answer = requests.get(f"{router.url}/", timeout=30)
    assert answer.status_code == 200
