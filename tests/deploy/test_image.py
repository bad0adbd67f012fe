"""The image: built by Debian's buildah without a network, looked at, and started."""

import json
import os
import subprocess

import pytest
import requests
from cluster import Cluster, PodProcess
from rendering import NAMESPACE, PLAIN, ROOT, TLS, WITHOUT_GRACE, rendered, run
from support import manifests
from support.process import Process, answers, eventually, free_port
from traffic import certificate

NAME = "localhost/scorefront:test"
BYTES_MAX = 40_000_000
BUILD_SECONDS_MAX = 1500


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """Runs buildah with a storage of its own: no daemon, no overlay file system, no namespaces."""
    folder = tmp_path_factory.mktemp("storage")
    configuration = folder / "storage.conf"
    configuration.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder / "graph"}"\nrunroot = "{folder / "run"}"\n'
    )
    environment = os.environ | {
        "CONTAINERS_STORAGE_CONF": str(configuration),
        "BUILDAH_ISOLATION": "chroot",
        "BUILDER": "buildah",
        # What is tried here is the image. An optimised build takes minutes and only makes it smaller.
        "PROFILE": os.environ.get("PROFILE", "dev"),
        "TRAIN_SECONDS": os.environ.get("TRAIN_SECONDS", "0"),
    }

    def call(*arguments, seconds=120):
        done = subprocess.run(
            [str(argument) for argument in arguments],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(ROOT / "deploy/build-image", NAME, seconds=BUILD_SECONDS_MAX)
    yield lambda *arguments: call("buildah", *arguments)
    # What is mounted is unmounted with it.
    call("buildah", "rm", "--all")
    call("buildah", "rmi", "--all", "--force")


@pytest.fixture(scope="module")
def container(buildah):
    return buildah("from", "--pull-never", NAME).strip()


@pytest.fixture(scope="module")
def root(buildah, container):
    """The file system of the image."""
    return ROOT / buildah("mount", container).strip()


def files_of(root):
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def configuration(buildah):
    """What the image says of itself."""
    return json.loads(buildah("inspect", "--type", "image", NAME))["OCIv1"]["config"]


def test_the_image_has_the_router_and_its_licence_and_nothing_else(root):
    # buildah itself lays files for the network into a container.
    kept = {name for name in files_of(root) if not name.startswith(("etc/", "run/", "proc/", "sys/", "dev/"))}
    assert kept == {"scorefront", "LICENSE"}


def test_the_image_is_small(root):
    size = sum(path.stat().st_size for path in files_of(root).values())
    assert 1_000_000 < size < BYTES_MAX


def test_the_image_says_what_it_is_and_does_not_run_as_root(buildah):
    config = configuration(buildah)
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["/scorefront"], ["serve"])
    assert "MIMALLOC_PURGE_DELAY=25" in config["Env"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "Scorefront"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == rendered(PLAIN).container["image"].rpartition(":")[2]
    assert labels["org.opencontainers.image.revision"]
    ports = {f"{port}/tcp" for port in (8080, 8443, 9090)}
    assert config["ExposedPorts"].keys() == ports


def test_the_user_of_the_image_is_the_one_of_the_chart(buildah):
    context = rendered(PLAIN).pod["spec"]["securityContext"]
    assert configuration(buildah)["User"] == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_the_image_tells_its_version(buildah, container):
    told = buildah("run", "--isolation", "chroot", container, "--", "/scorefront", "--version")
    assert told.startswith("scorefront ") and "commit unknown" not in told


def test_the_image_needs_nothing_but_what_a_pod_has_and_starts_again_without_the_api_server(root, tmp_path):
    cluster = Cluster(tmp_path)
    try:
        for namespace in [NAMESPACE, "models"]:
            cluster.kubectl("create", "namespace", namespace)
        cluster.install(TLS)
        cluster.kubectl("apply", "--filename", ROOT / "deploy/sample/model.yaml")
        volume = root / "etc/scorefront/tls"
        volume.mkdir(parents=True)
        chain, key = certificate(volume)
        # As the kubelet writes it: the router is not root.
        key.chmod(0o644)
        router = PodProcess(cluster, rendered(TLS | WITHOUT_GRACE).arguments, tmp_path, root)

        def shows_its_certificate():
            url = f"https://127.0.0.1:{router.tls_port}/"
            return requests.get(url, verify=str(chain), timeout=10).status_code == 200

        try:
            router.process.wait_until_ready(f"{router.admin_url}/readyz")
            (endpoint,) = router.page("/debug/snapshot").json()["endpoints"]
            assert (endpoint["name"], endpoint["keys"]) == ("iris", 2)
            assert shows_its_certificate()
            # The volume of the pod is writable for everybody, and the file is for the router alone.
            saved = root / "var/lib/scorefront/world.json"
            eventually(saved.exists, router.process.printed, 20)
            cluster.stop()
            router.restart()
            router.process.wait_until_ready(f"{router.admin_url}/readyz")
            assert "restored" in router.page("/readyz").text
            (endpoint,) = router.page("/debug/snapshot").json()["endpoints"]
            assert (endpoint["name"], endpoint["keys"]) == ("iris", 2)
            assert shows_its_certificate()
        finally:
            assert router.process.stop() == 0, router.process.printed()
    finally:
        cluster.stop()


def test_the_image_serves_and_drains_as_its_user(root, tmp_path):
    models = root / "models"
    models.mkdir()
    (models / "iris.json").write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [*manifests.deployment("iris", "blue", [free_port()])]}
        )
    )
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    user = rendered(PLAIN).pod["spec"]["securityContext"]
    command = ["chroot", f"--userspec={user['runAsUser']}:{user['runAsGroup']}", root, "/scorefront", "serve"]
    command += ["--source=manifests:/models", f"--listen={listen}", f"--admin={admin}", "--drain-grace-ms=100"]
    router = Process("image", command, tmp_path)
    try:
        router.wait_until_ready(f"http://{admin}/readyz")
        eventually(lambda: answers(f"http://{listen}/"), "the health page answers")
        status = run("cat", f"/proc/{router.child.pid}/status").stdout
        assert f"Uid:\t{user['runAsUser']}\t" in status
    finally:
        code = router.stop()
    assert code == 0, router.printed()
