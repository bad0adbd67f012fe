"""The chart in a real cluster: what the API server takes, what the account may do, what the router can do with it.

The cluster enforces the Pod Security level `restricted` everywhere. There are no nodes, so no pod of it runs: the
router is started beside it, with the arguments and the token that its pod would have.
"""

import json
import ssl

import pytest
import requests
from cluster import Cluster, PodProcess
from rendering import NAMESPACE, PLAIN, ROOT, TLS, WITHOUT_GRACE, rendered, tool
from support.process import eventually
from traffic import certificate

EVERYTHING = {
    **TLS,
    "allowInsecureConnections": True,
    "inferenceRouterServiceType": "loadBalancer",
    "internalLoadBalancerProvider": "azure",
    "autoscaling": {"enabled": True},
    "spreadOverNodes": "hard",
    "dashboard": {"enabled": True},
    "openshift": {"bindSecurityContextConstraint": True},
}
MONITORED = {
    **PLAIN,
    "metrics": {
        "interval": "1m30s",
        "podMonitor": {"enabled": True, "labels": {"release": "stack"}},
        "serviceMonitor": {"enabled": True},
    },
    "alerts": {"enabled": True},
}
WHOLE_CLUSTER = {"allowReadingAllSecretsOfTheCluster": True, "modelNamespaces": []}

# What discovery needs, as (verb, group, resource, name).
READS = {
    (verb, group, resource, "")
    for verb in ["list", "watch"]
    for group, resource in [("", "services"), ("", "secrets"), ("discovery.k8s.io", "endpointslices")]
}

# One that says nothing about its rights has more than that level gives.
CARELESS_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "careless", "namespace": NAMESPACE},
    "spec": {"containers": [{"name": "one", "image": "one"}]},
}

SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "iris-blue-by-hand",
        "namespace": "models",
        "labels": {"kubernetes.io/service-name": "iris-blue"},
    },
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 5001}],
    "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": True}}],
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for namespace in [NAMESPACE, "models", "others"]:
            running.kubectl("create", "namespace", namespace)
        for kind in ["podmonitors", "servicemonitors", "prometheusrules"]:
            running.kubectl("create", "--filename", tool(f"crds/monitoring.coreos.com_{kind}.yaml"))
            running.kubectl("wait", "--for=condition=established", f"crd/{kind}.monitoring.coreos.com", "--timeout=30s")
        yield running
    finally:
        running.stop()


@pytest.fixture
def nobody(cluster):
    """What every account may do, in each namespace."""
    return cluster.account("default")


def test_the_cluster_does_enforce_the_restricted_level(cluster):
    done = cluster.tried("create", "--filename", "-", stdin=json.dumps(CARELESS_POD))
    assert done.returncode != 0 and 'violates PodSecurity "restricted' in done.stderr


def texts():
    """Everything that people apply, by name."""
    for name, values in {
        "plain": PLAIN,
        "tls": TLS,
        "everything": EVERYTHING,
        "monitored": MONITORED,
        "cluster": PLAIN | WHOLE_CLUSTER,
    }.items():
        yield name, lambda values=values: rendered(values).text
    paths = [*(ROOT / "deploy/manifests").glob("*.yaml"), *(ROOT / "deploy/ingress").glob("*.yaml")]
    for path in sorted(path for path in paths if not path.stem.endswith(".values")):
        yield path.stem, path.read_text
    yield "sample", (ROOT / "deploy/sample/model.yaml").read_text


TRY = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-"]


@pytest.mark.parametrize("text", [text for _, text in texts()], ids=[name for name, _ in texts()])
def test_the_api_server_takes_every_object_without_a_warning(cluster, text):
    done = cluster.tried(*TRY, stdin=text())
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "serverside-applied" in done.stdout


@pytest.mark.parametrize(
    "right, wrong, told",
    [
        ('interval: "1m30s"', "interval: 1.5m", "spec.podMetricsEndpoints[0].interval: Invalid value"),
        ("for: 2m", "for: 2 minutes", "spec.groups[0].rules[0].for: Invalid value"),
        ("podMetricsEndpoints:", "podMetricEndpoints:", ".spec.podMetricEndpoints: field not declared in schema"),
    ],
)
def test_the_api_server_knows_the_objects_of_the_prometheus_operator(cluster, right, wrong, told):
    text = rendered(MONITORED).text
    assert right in text
    done = cluster.tried(*TRY, stdin=text.replace(right, wrong))
    assert done.returncode != 0 and told in done.stderr, done.stderr


def test_helm_installs_upgrades_and_rolls_back_and_the_pods_are_let_in(cluster):
    def have(count, what):
        def events():
            return f"{what}: {cluster.kubectl('get', 'events', '--namespace', NAMESPACE)}"

        eventually(lambda: len(cluster.items("pods")) == count, events, 30)

    def ports():
        (service,) = cluster.items("service")
        return [port["port"] for port in service["spec"]["ports"]]

    cluster.install(PLAIN)
    have(3, "three pods are made")
    cluster.install(EVERYTHING)
    assert ports() == [80, 443]
    have(4, "the surge pod of the new revision is made, and nobody goes before it is ready")
    assert cluster.items("deployment")[0]["spec"]["replicas"] == 3, "an autoscaler that is new has not scaled down"
    cluster.helm("rollback", "scorefront")
    assert ports() == [80]


def test_beside_an_autoscaler_there_are_never_fewer_than_its_minimum(cluster):
    def replicas():
        (deployment,) = cluster.items("deployment")
        return deployment["spec"]["replicas"]

    scaled = {**PLAIN, "autoscaling": {"enabled": True, "minReplicas": 2}}
    cluster.helm("uninstall", "scorefront", "--ignore-not-found")
    cluster.install(scaled)
    assert replicas() == 2, "not the one that a missing field stands for"
    for count, kept in [(5, 5), (0, 2)]:
        cluster.kubectl("scale", "deployment/azureml-fe-v2", f"--replicas={count}", "--namespace", NAMESPACE)
        cluster.install(scaled)
        assert replicas() == kept


def test_the_account_may_do_what_discovery_needs_and_nothing_more(cluster, nobody):
    cluster.install(PLAIN)
    account = cluster.account()
    for namespace, more in {"models": READS, NAMESPACE: set(), "others": set(), "kube-system": set()}.items():
        assert cluster.rights(account, namespace) - cluster.rights(nobody, namespace) == more, namespace


@pytest.mark.parametrize(
    "question",
    [
        ["list", "secrets", "--all-namespaces"],
        ["list", "services", "--all-namespaces"],
        ["list", "secrets", "--namespace", NAMESPACE],
        ["get", "secrets", "--namespace", "models"],
        ["update", "services", "--namespace", "models"],
        ["patch", "deployments.apps", "--namespace", "models"],
        ["create", "pods", "--namespace", "models"],
        ["list", "pods", "--namespace", "models"],
        ["list", "nodes"],
        ["impersonate", "users"],
        ["*", "*"],
    ],
    ids=" ".join,
)
def test_the_api_server_says_no_to_everything_else(cluster, question):
    cluster.install(PLAIN)
    done = cluster.tried("auth", "can-i", *question, kubeconfig=cluster.account())
    assert done.stdout.strip() == "no", done.stdout + done.stderr


def test_with_tls_it_may_do_nothing_more(cluster, nobody):
    cluster.install(TLS)
    assert cluster.rights(cluster.account(), NAMESPACE) == cluster.rights(nobody, NAMESPACE)


def test_the_whole_cluster_is_open_to_it_only_with_the_words_for_it(cluster, nobody):
    cluster.install(PLAIN | WHOLE_CLUSTER)
    account = cluster.account()
    for namespace in ["models", "others", "kube-system"]:
        assert cluster.rights(account, namespace) - cluster.rights(nobody, namespace) == READS
    cluster.install(PLAIN)
    account = cluster.account()
    assert cluster.rights(account, "others") == cluster.rights(nobody, "others")


@pytest.fixture
def router(cluster, tmp_path):
    """Starts it as its pod would; it need not be ready."""
    cluster.install(PLAIN)
    cluster.kubectl("apply", "--filename", ROOT / "deploy/sample/model.yaml")
    cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(SLICE))
    started = []

    def start(values=PLAIN):
        started.append(PodProcess(cluster, rendered(values | WITHOUT_GRACE).arguments, tmp_path))
        return started[0]

    yield start
    codes = [running.process.stop() for running in started]
    assert codes == [0], started[0].process.printed() if started else "not started"


def is_ready(router):
    try:
        return router.page("/readyz").status_code == 200
    except requests.ConnectionError:
        return False


def test_the_router_discovers_and_follows_with_exactly_the_rights_of_its_account(cluster, router):
    running = router()
    eventually(lambda: is_ready(running), running.process.printed, 30)

    def iris():
        (endpoint,) = running.page("/debug/snapshot").json()["endpoints"]
        replicas = [replica["address"] for each in endpoint["deployments"] for replica in each["replicas"]]
        return endpoint["name"], endpoint["keys"], replicas

    def becomes(*wanted):
        eventually(lambda: iris() == wanted, lambda: f"{iris()} becomes {wanted}", 20)

    becomes("iris", 2, ["10.244.0.7:5001"])
    # It watches each kind: what changes is in force without a restart.
    cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(SLICE).replace("10.244.0.7", "10.244.0.8"))
    becomes("iris", 2, ["10.244.0.8:5001"])
    cluster.kubectl("delete", "secret", "iris-keys", "--namespace", "models")
    becomes("iris", 0, ["10.244.0.8:5001"])
    cluster.kubectl("delete", "service", "iris-blue", "--namespace", "models")
    eventually(lambda: not running.page("/debug/snapshot").json()["endpoints"], "the endpoint is gone", 20)
    assert "forbidden" not in running.process.printed().lower()


def test_a_missing_right_is_named_and_the_next_upgrade_gives_it_back(cluster, router):
    cluster.kubectl("delete", "rolebinding", "scorefront-azureml", "--namespace", "models")
    running = router()
    remedy = "grant the router's ServiceAccount the verbs list and watch on secrets"
    eventually(lambda: remedy in running.process.printed(), running.process.printed, 30)
    assert not is_ready(running)
    cluster.install(PLAIN)
    eventually(lambda: is_ready(running), running.process.printed, 60)


def test_with_tls_the_router_takes_its_certificate_from_the_mounted_secret_and_follows_it(cluster, router, tmp_path):
    volume = tmp_path / "tls"

    def put(version):
        """As the kubelet brings a Secret into the pod: all of it at once, by a link."""
        (volume / version).mkdir(parents=True)
        paths = certificate(volume / version)
        (volume / "..new").symlink_to(version)
        (volume / "..new").rename(volume / "..data")
        return paths[0].read_text()

    def shown():
        try:
            return ssl.get_server_certificate(("127.0.0.1", running.tls_port), timeout=5)
        except OSError:
            return None

    cluster.install(TLS)
    first = put("..1")
    for name in ["cert.pem", "key.pem"]:
        (volume / name).symlink_to(f"..data/{name}")
    running = router(TLS)
    eventually(lambda: is_ready(running), running.process.printed, 30)
    eventually(lambda: shown() == first, running.process.printed, 20)
    # Port 80 of the chart sends clients there, and lets load balancers probe.
    answer = requests.post(f"{running.url}/api/v1/endpoint/iris/score", data=b"{}", allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["location"]) == (308, "https://127.0.0.1/api/v1/endpoint/iris/score")
    assert requests.get(running.url, allow_redirects=False, timeout=10).status_code == 200
    second = put("..2")
    eventually(lambda: shown() == second, running.process.printed, 20)
    assert "forbidden" not in running.process.printed().lower()


# As the control plane of the tests has it; what tokens are asked for is free.
TOKEN_SETTINGS = {"token-issuer": "https://kubernetes.default.svc", "token-audience": "https://ml.example.com"}


def keys(running):
    """The keys that it checks tokens with, and what is wrong with their source."""
    page = running.page("/debug/tokens").json()
    return [key["alg"] for key in page["keys"]], page["problem"]


def test_pods_score_with_the_tokens_of_their_accounts(cluster, router):
    """The way of docs/tokens.md, with the API server as issuer."""
    binding = ["--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated"]
    cluster.kubectl("create", "clusterrolebinding", "token-keys", *binding)
    asks = ["service/iris-blue", "--namespace", "models", "--overwrite", "scorefront.dev/auth-mode=aml_token"]
    cluster.kubectl("annotate", *asks)
    authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    url = f"{cluster.server}/openid/v1/jwks"
    running = router({**PLAIN, "settings": {**TOKEN_SETTINGS, "token-jwks-url": url, "token-jwks-ca": authority}})
    eventually(lambda: is_ready(running), running.process.printed, 30)
    assert keys(running) == (["ES256"], None)

    def answer(*audience):
        token = cluster.kubectl("create", "token", "default", "--namespace", "models", *audience).strip()
        # Who gets in learns that there is no such deployment: no replica is asked.
        headers = {"Authorization": f"Bearer {token}", "azureml-model-deployment": "green"}
        got = requests.post(f"{running.url}/api/v1/endpoint/iris/score", data=b"{}", headers=headers, timeout=10)
        return got.status_code, got.json()["error"]["message"]

    assert answer("--audience=https://ml.example.com")[0] == 404
    assert answer() == (401, "Unauthorized: the token's aud is not the audience that is asked for.")


def test_keys_for_tokens_come_from_a_secret_with_the_right_that_the_chart_gives(cluster, router, nobody):
    values = {**PLAIN, "settings": {**TOKEN_SETTINGS, "token-jwks-secret": f"{NAMESPACE}/token-keys"}}
    cluster.install(values)
    account = cluster.account()
    right = {(verb, "", "secrets", "token-keys") for verb in ["get", "list", "watch"]}
    assert cluster.rights(account, NAMESPACE) - cluster.rights(nobody, NAMESPACE) == right
    data = {"jwks.json": cluster.kubectl("get", "--raw", "/openid/v1/jwks")}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token-keys", "namespace": NAMESPACE}}
    cluster.kubectl("apply", "--filename", "-", stdin=json.dumps({**secret, "stringData": data}))
    running = router(values)
    eventually(lambda: is_ready(running), running.process.printed, 30)
    assert keys(running) == (["ES256"], None)
    cluster.kubectl("delete", "secret", "token-keys", "--namespace", NAMESPACE)
    eventually(lambda: keys(running) == (["ES256"], "is not there"), lambda: f"{keys(running)}", 20)
    assert "forbidden" not in running.process.printed().lower()
