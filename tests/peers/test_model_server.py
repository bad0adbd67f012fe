"""The stock model server behind the router: scoring, failing, sleeping, streaming."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from conftest import KEY, SETOSA, VIRGINICA
from support.process import eventually

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
MOODY = {"endpoint": "moody", "deployment": "only"}


@pytest.fixture
def ask_moody(router):
    def ask(order, **options):
        return requests.post(router.scoring_uri("moody"), json=order, timeout=30, **options)

    return ask


def test_a_model_scores_through_the_router(router):
    for rows, species in ((SETOSA, "setosa"), (VIRGINICA, "virginica")):
        answer = requests.post(router.scoring_uri("iris"), json=rows, headers=AUTHORIZED, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"species": [species]}
        assert answer.headers["azureml-model-deployment"] in ("blue", "green")
        assert float(answer.headers["x-ms-run-fn-exec-ms"]) > 0
        assert answer.headers["x-ms-server-version"].startswith("azmlinfsrv/")


def test_one_worker_servers_take_a_burst_without_an_error(router, servers):
    headers = AUTHORIZED | {"azureml-model-deployment": "blue"}
    with ThreadPoolExecutor(24) as clients:
        answers = list(
            clients.map(
                lambda _: requests.post(router.scoring_uri("iris"), json=SETOSA, headers=headers, timeout=30), range(120)
            )
        )
    assert [answer.status_code for answer in answers] == [200] * 120
    lines = [router.logged(answer.headers["x-request-id"]) for answer in answers]
    used = {line["Replica"].rsplit(":", 1)[1] for line in lines}
    assert used == {str(server.port) for server in servers.blue}, "every instance takes its share"
    assert all(line["Attempts"] == 1 for line in lines)


def test_a_raising_script_is_a_502_with_its_own_body(router, ask_moody):
    answer = ask_moody({"raise": "no such species"})
    assert answer.status_code == 502
    assert answer.json() == {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
    assert answer.headers["ms-azureml-model-error-statuscode"] == "500"
    assert answer.headers["ms-azureml-model-error-reason"] == "model_error"
    assert answer.headers["x-ms-run-function-failed"] == "True"
    assert "retry-after" not in answer.headers
    line = router.logged(answer.headers["x-request-id"])
    assert (line["ResponseCode"], line["ModelStatusCode"], line["Outcome"]) == (502, 500, "model_error")


def test_a_sleeping_script_is_a_504_and_keeps_its_slot_until_it_answers(router, ask_moody, gate):
    late = ask_moody({"gate": gate.name})
    assert late.status_code == 504, late.text
    assert late.json()["error"]["code"] == "RequestTimeout"
    assert late.json()["error"]["requestId"] == late.headers["x-request-id"]
    line = router.logged(late.headers["x-request-id"])
    assert (line["ResponseCode"], line["Outcome"]) == (504, "replica_timeout")
    assert router.metric("scorefront_abandoned_slots", **MOODY) == 1

    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(ask_moody, {})
        eventually(lambda: router.metric("scorefront_queued_requests", **MOODY) == 1, "the next request waits for the slot")
        gate.open()
        following = waiting.result()
    assert following.status_code == 200, following.text
    line = router.logged(following.headers["x-request-id"])
    assert line["QueuePosition"] == 0 and line["QueueDurationMs"] > 0 and line["Attempts"] == 1
    assert line["UpstreamDurationMs"] < 1000, "it did not wait in the backlog of a busy server"
    assert router.metric("scorefront_abandoned_slots", **MOODY) == 0


def test_a_stream_arrives_chunk_by_chunk(ask_moody, gate):
    with ask_moody({"stream": gate.name}, stream=True) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = answer.iter_content(None)
        # The script makes the second event only after the gate was opened, so the first came without it.
        assert next(chunks) == b"data: first\n\n"
        gate.open()
        assert b"".join(chunks) == b"data: second\n\n"


def test_the_swagger_document_is_the_containers(router):
    answer = requests.get(f"{router.url}/api/v1/endpoint/iris/swagger.json", headers=AUTHORIZED, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["swagger"] == "2.0"
    third = requests.get(
        f"{router.url}/api/v1/endpoint/iris/swagger.json?version=3", headers=AUTHORIZED, timeout=30
    )
    assert third.json()["openapi"].startswith("3."), "the query string is kept"


def test_ids_are_made_passed_on_and_echoed(ask_moody):
    answer = ask_moody({})
    made = answer.headers["x-request-id"]
    assert len(made) == 36
    assert answer.headers["x-ms-request-id"] == made
    assert answer.json()["seen"]["x-request-id"] == made

    answer = ask_moody({}, headers={"x-request-id": "mine", "x-ms-request-id": "legacy-7"})
    assert answer.headers["x-request-id"] not in ("mine", made), "the router's own id, not the client's"
    assert answer.headers["x-ms-request-id"] == "legacy-7"

    answer = ask_moody({}, headers={"x-ms-client-request-id": "client-42"})
    assert answer.headers["x-ms-client-request-id"] == "client-42"
    assert answer.json()["seen"]["x-ms-client-request-id"] == "client-42"


def test_a_long_client_request_id_is_cut_before_the_model_server_refuses_it(router, ask_moody):
    answer = ask_moody({}, headers={"x-ms-client-request-id": "a" * 200})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ms-client-request-id"] == "a" * 40
    assert router.logged(answer.headers["x-request-id"])["XMSClientRequestId"] == "a" * 40


def test_the_key_stays_at_the_router(router, ask_moody):
    answer = ask_moody({}, headers=AUTHORIZED)
    assert "authorization" not in answer.json()["seen"]
    for text in (router.access_log.read_text(), router.process.output.read_text(), router.metrics_text()):
        assert KEY not in text


def test_options_reaches_the_container(router):
    answer = requests.options(router.scoring_uri("iris"), headers=AUTHORIZED, timeout=30)
    assert answer.status_code == 200
    assert "x-ms-server-version" in answer.headers


def test_errors_of_the_container_pass_unchanged(router):
    answer = requests.post(router.scoring_uri("iris"), data=b"\xff", headers=AUTHORIZED, timeout=30)
    assert answer.status_code == 400
    assert json.loads(answer.content).keys() == {"message"}
    answer = requests.get(f"{router.url}/api/v1/endpoint/iris/no/such/route", headers=AUTHORIZED, timeout=30)
    assert answer.status_code == 404
    assert answer.json().keys() == {"message"}, "the container's 404, not the router's"
