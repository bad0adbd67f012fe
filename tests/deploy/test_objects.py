"""What the chart makes of the values that operators of the Azure ML extension know."""

import itertools

import kubernetes_validate
import pytest
from rendering import CHOSEN, NAMESPACE, PLAIN, TLS, rendered

TYPES = {"clusterIP": "ClusterIP", "nodePort": "NodePort", "loadBalancer": "LoadBalancer"}


@pytest.mark.parametrize(
    "kind, is_ha, security", list(itertools.product(TYPES, [True, False], ["plain", "tls", "both"]))
)
def test_service_type_availability_and_security_go_together_in_every_way(kind, is_ha, security):
    values = {**CHOSEN, "inferenceRouterServiceType": kind, "inferenceRouterHA": is_ha}
    values |= {"plain": {}, "tls": {"sslSecret": "certificate"}, "both": {"sslSecret": "certificate"}}[security]
    values["allowInsecureConnections"] = security != "tls"
    objects = rendered(values)

    service = objects.one("Service", "azureml-fe")["spec"]
    assert service["type"] == TYPES[kind]
    # Beside TLS alone, port 80 is there to redirect; but to which port is not known where the nodes choose it.
    redirects = security == "tls" and kind != "nodePort"
    names = {"http"} if security == "plain" else {"http", "https"} if security == "both" or redirects else {"https"}
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]}
    assert ports == {name: {"http": (80, "http"), "https": (443, "https")}[name] for name in names}
    in_pod = {port["name"]: port["containerPort"] for port in objects.container["ports"]}
    assert in_pod == {name: {"admin": 9090, "http": 8080, "https": 8443}[name] for name in names | {"admin"}}
    arguments = objects.arguments
    assert ("--listen=0.0.0.0:8080" if "http" in names else "--listen=off") in arguments
    assert ("--listen-tls=0.0.0.0:8443" in arguments) == ("https" in names)
    assert ({"--tls-cert=/etc/scorefront/tls", "--tls-key=/etc/scorefront/tls"} <= set(arguments)) == ("https" in names)
    assert ("--redirect-to-https=443" in arguments) == redirects
    allowed = objects.one("NetworkPolicy")["spec"]["ingress"][0]["ports"]
    assert {port["port"] for port in allowed} == names

    assert objects.one("Deployment")["spec"]["replicas"] == (3 if is_ha else 1)
    assert ("PodDisruptionBudget" in objects.kinds()) == is_ha


@pytest.mark.parametrize("kind", TYPES)
def test_without_consent_nobody_is_served_without_tls(kind):
    arguments = rendered({**TLS, "inferenceRouterServiceType": kind}).arguments
    assert "--listen=off" in arguments or "--redirect-to-https=443" in arguments
    arguments = rendered({**TLS, "inferenceRouterServiceType": kind, "redirectToHttps": False}).arguments
    assert "--listen=off" in arguments


def test_a_redirect_leads_to_the_port_of_the_nodes_where_it_is_known():
    nodes = {"inferenceRouterServiceType": "nodePort", "service": {"nodePorts": {"https": 30443}}}
    assert "--redirect-to-https=30443" in rendered({**TLS, **nodes}).arguments


def test_names_and_labels_are_those_of_azureml_fe():
    objects = rendered(PLAIN)
    for kind, name in [("Deployment", "azureml-fe-v2"), ("Service", "azureml-fe"), ("ServiceAccount", "azureml-fe-v2")]:
        assert (NAMESPACE, name) in objects.named(kind)
    drop_in = {"azuremlappname": "azureml-fe", "azuremlappversion": "v2", "ml.azure.com/amlarc-system": "true"}
    assert drop_in.items() <= objects.pod["metadata"]["labels"].items()
    assert objects.pod["spec"]["serviceAccountName"] == "azureml-fe-v2"
    selector = {"azuremlappname": "azureml-fe", "azuremlappversion": "v2"}
    assert objects.one("Deployment")["spec"]["selector"]["matchLabels"] == selector
    assert objects.one("Service")["spec"]["selector"] == selector


def test_the_routers_own_objects_do_not_look_like_a_model():
    for object in rendered({**PLAIN, "metrics": {"serviceMonitor": {"enabled": True}}}).all:
        labels = object["metadata"].get("labels", {})
        assert not labels.keys() & {"isazuremlapp", "ml.azure.com/endpoint-name", "ml.azure.com/deployment-name"}


@pytest.mark.parametrize(
    "provider, annotation",
    [
        ("azure", {"service.beta.kubernetes.io/azure-load-balancer-internal": "true"}),
        (
            "aws",
            {
                "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
                "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
            },
        ),
        ("gcp", {"networking.gke.io/load-balancer-type": "Internal"}),
    ],
)
def test_an_internal_load_balancer_has_the_annotation_of_its_provider(provider, annotation):
    values = {"inferenceRouterServiceType": "loadBalancer", "internalLoadBalancerProvider": provider}
    service = rendered({**PLAIN, **values, "service": {"annotations": {"own": "one"}}}).one("Service")
    assert service["metadata"]["annotations"] == {"own": "one", **annotation}


def test_names_of_digits_alone_stay_texts():
    names = {"modelNamespaces": ["123"], "sslSecret": "456", "priorityClassName": "7"}
    monitoring = {"networkPolicy": {"monitoringNamespaces": ["8"]}}
    pull = {"image": {"repository": "registry.example/scorefront", "pullSecrets": ["9"]}}
    objects = rendered({**PLAIN, **names, **monitoring, **pull}, "--namespace", "10")
    assert ("123", "scorefront-10") in objects.named("Role")
    assert objects.named("RoleBinding")["123", "scorefront-10"]["subjects"][0]["namespace"] == "10"
    for object in objects.all:
        kubernetes_validate.validate(object, "1.37", strict=True)


def test_ones_own_labels_and_annotations_stand_beside_those_of_the_chart_and_annotations_beat_them():
    own = {"podLabels": {"own": "one"}, "podAnnotations": {"own": "two", "prometheus.io/port": "9091"}}
    metadata = rendered({**PLAIN, **own}).pod["metadata"]
    assert metadata["labels"].items() >= {"own": "one", "azuremlappname": "azureml-fe"}.items()
    assert metadata["annotations"] == {
        "own": "two",
        "kubectl.kubernetes.io/default-container": "scorefront",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9091",
        "prometheus.io/path": "/metrics",
    }
    labels = {"alerts": {"enabled": True, "labels": {"app.kubernetes.io/name": "rules"}}}
    text = rendered({**PLAIN, **own, **labels}).text
    assert text.count("prometheus.io/port:") == 1 and text.count("app.kubernetes.io/name: rules") == 1


@pytest.mark.parametrize("size", ["64M", "64Mi", "1.5Gi", "67108864"])
def test_every_form_of_a_size_is_taken(size):
    (volume,) = rendered({**PLAIN, "stateFile": {"sizeLimit": size}}).pod["spec"]["volumes"]
    assert volume["emptyDir"]["sizeLimit"] == size


@pytest.mark.parametrize("interval", ["15s", "1m30s", "500ms", "1h"])
def test_every_form_of_an_interval_is_taken(interval):
    monitor = rendered({**PLAIN, "metrics": {"interval": interval, "podMonitor": {"enabled": True}}}).one("PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["interval"] == interval


def test_replicas_beat_the_availability_setting():
    assert rendered({**PLAIN, "replicas": 5}).one("Deployment")["spec"]["replicas"] == 5
    assert rendered({**PLAIN, "replicas": 1}).kinds().isdisjoint({"PodDisruptionBudget"})
    assert rendered({**PLAIN, "replicas": 2, "inferenceRouterHA": False}).one("PodDisruptionBudget")


def test_an_autoscaler_alone_says_how_many_there_are():
    objects = rendered({**PLAIN, "autoscaling": {"enabled": True, "maxReplicas": 7}})
    assert "replicas" not in objects.one("Deployment")["spec"]
    scaler = objects.one("HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 7)
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "azureml-fe-v2"}
    assert "HorizontalPodAutoscaler" not in rendered(PLAIN).kinds()
    single = {"enabled": True, "minReplicas": 1}
    assert "PodDisruptionBudget" not in rendered({**PLAIN, "autoscaling": single}).kinds()


def test_pods_spread_over_nodes_softly_unless_told_to_be_hard():
    soft = rendered(PLAIN).pod["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"]: each["whenUnsatisfiable"] for each in soft} == {
        "kubernetes.io/hostname": "ScheduleAnyway",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }
    hard = rendered({**PLAIN, "spreadOverNodes": "hard"}).pod["spec"]["topologySpreadConstraints"]
    (by_node,) = [each for each in hard if each["topologyKey"] == "kubernetes.io/hostname"]
    assert (by_node["whenUnsatisfiable"], by_node["minDomains"], by_node["maxSkew"]) == ("DoNotSchedule", 3, 1)
    # An autoscaler may make more of them, and they too are one to a node.
    scaled = {"spreadOverNodes": "hard", "autoscaling": {"enabled": True, "maxReplicas": 7}}
    by_node, _ = rendered({**PLAIN, **scaled}).pod["spec"]["topologySpreadConstraints"]
    assert by_node["minDomains"] == 7
    # Without this the surge pod of a rolling update would find no node.
    assert by_node["matchLabelKeys"] == ["pod-template-hash"]


def test_the_taints_of_azure_ml_are_tolerated_in_every_effect_and_ones_own_too():
    own = {"key": "own", "operator": "Exists"}
    tolerations = rendered({**PLAIN, "tolerations": [own]}).pod["spec"]["tolerations"]
    effects = ["NoSchedule", "NoExecute", "PreferNoSchedule"]
    for key, effect in itertools.product(["ml.azure.com/amlarc", "ml.azure.com/amlarc-system"], effects):
        assert {"key": key, "operator": "Equal", "value": "true", "effect": effect} in tolerations
    assert own in tolerations and len(tolerations) == 7


def test_a_node_selector_is_added_to_the_one_for_linux():
    objects = rendered(PLAIN, "--set", "nodeSelector.agentpool=cpu,nodeSelector.big=true")
    assert objects.pod["spec"]["nodeSelector"] == {"agentpool": "cpu", "big": "true", "kubernetes.io/os": "linux"}


def test_resources_are_those_of_azureml_fe_and_can_be_set():
    default = {"requests": {"cpu": "900m", "memory": "800Mi"}, "limits": {"cpu": "2", "memory": "1200Mi"}}
    assert rendered(PLAIN).container["resources"] == default
    given = rendered(PLAIN, "--set", "scoringFe.resources.limits.cpu=4").container["resources"]
    assert given == {"requests": default["requests"], "limits": {"cpu": 4, "memory": "1200Mi"}}


def test_an_image_is_named_by_tag_or_by_digest():
    assert rendered(PLAIN).container["image"] == "registry.example/scorefront:0.1.0"
    digest = "sha256:" + "0" * 64
    image = {"repository": "registry.example/scorefront", "tag": "1", "digest": digest, "pullSecrets": ["pull"]}
    objects = rendered({**PLAIN, "image": image})
    assert objects.container["image"] == f"registry.example/scorefront@{digest}"
    assert objects.pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_prometheus_finds_the_pods_in_exactly_one_way():
    def annotated(objects):
        return {key for key in objects.pod["metadata"]["annotations"] if key.startswith("prometheus.io/")}

    plain = rendered(PLAIN)
    assert plain.pod["metadata"]["annotations"]["prometheus.io/port"] == "9090"
    assert len(annotated(plain)) == 3 and plain.kinds().isdisjoint({"PodMonitor", "ServiceMonitor"})

    pods = rendered({**PLAIN, "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "stack"}}}})
    monitor = pods.one("PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "admin", "path": "/metrics", "interval": "15s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pods.pod["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "stack" and not annotated(pods)

    services = rendered({**PLAIN, "metrics": {"serviceMonitor": {"enabled": True}}})
    monitor, headless = services.one("ServiceMonitor"), services.one("Service", "azureml-fe-metrics")
    assert monitor["spec"]["endpoints"] == [{"port": "admin", "path": "/metrics", "interval": "15s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= headless["metadata"]["labels"].items()
    assert headless["spec"]["clusterIP"] == "None" and not annotated(services)


def test_the_admin_port_is_in_no_service_that_clients_reach():
    for service in rendered({**PLAIN, "metrics": {"serviceMonitor": {"enabled": True}}}).named("Service").values():
        has_admin = any(port["targetPort"] == "admin" for port in service["spec"]["ports"])
        assert not has_admin or service["spec"].get("clusterIP") == "None"


def test_the_network_policy_lets_clients_in_and_only_prometheus_to_the_admin_port():
    policy = rendered({**PLAIN, "networkPolicy": {"monitoringNamespaces": ["monitoring"]}}).one("NetworkPolicy")["spec"]
    clients, prometheus = policy["ingress"]
    assert "from" not in clients
    assert prometheus["ports"] == [{"protocol": "TCP", "port": "admin"}]
    by_name = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert prometheus["from"] == [by_name]
    models = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}
    assert policy["egress"][0] == {"to": [models]}
    assert "NetworkPolicy" not in rendered({**PLAIN, "networkPolicy": {"enabled": False}}).kinds()
