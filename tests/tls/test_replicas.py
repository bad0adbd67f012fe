"""A replica that serves with OpenSSL, and the certificates that the page about TLS makes."""

import http.server
import os
import re
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import requests
from conftest import SETTINGS, Echo
from support import manifests
from support.process import need

PAGE = Path(__file__).parents[2] / "docs/tls.md"


@pytest.fixture
def certificates(tmp_path):
    """What the commands of the page leave behind."""
    need("openssl", "apt-get install openssl")
    example = PAGE.read_text().split("### An example")[1]
    commands = re.search(r"```sh\n(.*?)```", example, flags=re.DOTALL)[1]
    commands = commands.split("kubectl")[0]
    assert commands.count("openssl ") == 3
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    return tmp_path


@pytest.fixture
def serve():
    """Starts replicas with a certificate and gives their ports."""
    servers = []

    def start(folder, **versions):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        for name, version in versions.items():
            setattr(context, name, version)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def world(port, authority, **settings):
    """Endpoint `iris` of the page, open to everybody, and the Secret with this authority."""
    settings = {**SETTINGS, "replica_tls_ca_secret": "models-ca", **settings}
    labels = {"ml.azure.com/endpoint-name": "iris"}
    metadata = {"name": "models-ca", "namespace": manifests.NAMESPACE, "labels": labels}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"ca.crt": authority}}
    return [*manifests.deployment("iris", "blue", [port], **settings), secret]


def score(router, body):
    url = f"http://127.0.0.1:{router.plain_port}/api/v1/endpoint/iris/score"
    return requests.post(url, data=body, timeout=30)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_replica_with_the_certificate_of_the_page_is_served_whole_both_ways(
    start, authority, certificates, serve, version
):
    port = serve(certificates, maximum_version=version, minimum_version=version)
    own = authority.issue("own-ecdsa")
    router = start(*own, objects=world(port, (certificates / "ca.crt").read_text()))
    for size in (1, 20 << 20):
        sent = os.urandom(size)
        answer = score(router, sent)
        assert answer.status_code == 200 and answer.content == sent
    metrics = requests.get(f"{router.admin_url}/metrics", timeout=5).text
    assert 'scorefront_upstream_tls_handshakes_total{result="failed"} 0' in metrics


def test_who_is_not_believed_gets_no_request_and_the_answer_says_why(start, authority, certificates, serve):
    port = serve(certificates)
    own = authority.issue("own-ecdsa")
    trusted = (certificates / "ca.crt").read_text()
    for objects, why in [
        (world(port, authority.file.read_text()), "not from an authority"),
        (world(port, trusted, replica_tls_server_name="iris-green.models.svc"), "not for iris-green.models.svc"),
        (world(port, "none"), "cannot be used"),
    ]:
        answer = score(start(*own, objects=objects), b"x")
        assert answer.status_code == 502 and answer.json()["error"]["code"] == "ReplicaConnectFailed"
        assert why in answer.json()["error"]["message"]
