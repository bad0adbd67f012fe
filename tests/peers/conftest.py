"""One router in front of real model servers, shared by all tests of the session."""

import json
import os
from types import SimpleNamespace

import pytest
from support import manifests
from support.model_server import ModelServer
from support.router import Router

# Everything here is on loopback: a proxy of the environment has no part in it.
os.environ["NO_PROXY"] = "*"

KEY = "primary-key-of-the-peers"
OTHER_KEY = "secondary-key-of-the-peers"

SETOSA = {"data": [[5.1, 3.5, 1.4, 0.2]]}
VIRGINICA = {"data": [[6.9, 3.1, 5.4, 2.1]]}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A real scikit-learn model, trained on the iris data that the package ships."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("model")
    iris = load_iris()
    model = LogisticRegression(max_iter=1000).fit(iris.data, [iris.target_names[target] for target in iris.target])
    joblib.dump(model, folder / "iris.joblib")
    return folder


@pytest.fixture(scope="session")
def servers(tmp_path_factory, model_folder):
    """Three instances of `iris` blue, one of green, one of `moody`, by deployment."""
    folder = tmp_path_factory.mktemp("servers")
    plan = {"blue": ("iris.py", 3), "green": ("iris.py", 1), "moody": ("moody.py", 1)}
    running = {
        name: [ModelServer(f"{name}-{number}", script, folder, model_folder) for number in range(count)]
        for name, (script, count) in plan.items()
    }
    try:
        for server in sum(running.values(), []):
            server.wait_until_ready()
        yield SimpleNamespace(**running, gates=folder)
    finally:
        for server in sum(running.values(), []):
            server.stop()


@pytest.fixture(scope="session")
def router(tmp_path_factory, servers):
    def ports(name):
        return [server.port for server in getattr(servers, name)]

    running = Router(
        tmp_path_factory.mktemp("router"),
        [
            *manifests.deployment(
                "iris", "blue", ports("blue"), traffic_percent=90, max_queue_wait_ms=10000, request_timeout_ms=20000
            ),
            *manifests.deployment("iris", "green", ports("green"), traffic_percent=10, max_queue_wait_ms=10000),
            manifests.keys("iris", KEY, OTHER_KEY),
            *manifests.deployment(
                "moody", "only", ports("moody"), auth_mode="none", max_queue_wait_ms=10000, request_timeout_ms=2000
            ),
        ],
    )
    try:
        yield running
    finally:
        code = running.process.stop()
    assert code == 0, f"the router ended with {code} after SIGTERM:\n{running.process.printed()}"


@pytest.fixture
def gate(servers, request):
    """Lets the moody script go on. Whatever a failed test left waiting goes on at its end."""
    file = servers.gates / request.node.name
    yield SimpleNamespace(name=file.name, open=file.touch)
    file.touch()


@pytest.fixture(scope="session")
def setosa():
    return json.dumps(SETOSA).encode()
