"""The pod of the router: its rights on the node, its probes, its end."""

from rendering import PLAIN, TLS, rendered


def test_the_pod_has_no_more_rights_than_the_restricted_level_gives():
    objects = rendered(TLS)
    pod, container = objects.pod["spec"], objects.container
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"})
    assert all(port["containerPort"] > 1023 for port in container["ports"])


def test_probes_ask_the_admin_port():
    container = rendered(PLAIN).container
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert {"name": "admin", "containerPort": 9090} in container["ports"]
    assert "--admin=0.0.0.0:9090" in rendered(PLAIN).arguments


def test_the_pod_is_given_the_time_that_its_drain_takes():
    objects = rendered({**PLAIN, "drain": {"preStopSeconds": 10, "graceSeconds": 20, "timeoutSeconds": 300}})
    assert objects.pod["spec"]["terminationGracePeriodSeconds"] == 10 + 20 + 300 + 5
    assert objects.container["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert {"--drain-grace-ms=20000", "--drain-timeout-ms=300000"} <= set(objects.arguments)
    assert rendered(PLAIN).pod["spec"]["terminationGracePeriodSeconds"] == 45
    assert "lifecycle" not in rendered({**PLAIN, "drain": {"preStopSeconds": 0}}).container


def test_the_last_known_good_world_lies_on_a_volume_that_outlives_the_container():
    objects = rendered(PLAIN)
    (file,) = [argument for argument in objects.arguments if argument.startswith("--state-file=")]
    (mount,) = objects.container["volumeMounts"]
    assert file.removeprefix("--state-file=").startswith(mount["mountPath"] + "/")
    assert objects.pod["spec"]["volumes"] == [
        {"name": mount["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}
    ]
    without = rendered({**PLAIN, "stateFile": {"enabled": False}})
    assert "volumes" not in without.pod["spec"] and not any("--state-file" in one for one in without.arguments)


def test_the_certificate_is_mounted_so_that_a_restart_needs_no_api_server():
    objects = rendered({**TLS, "stateFile": {"enabled": False}})
    (mount,) = objects.container["volumeMounts"]
    assert mount == {"name": "tls", "mountPath": "/etc/scorefront/tls", "readOnly": True}
    assert objects.pod["spec"]["volumes"] == [{"name": "tls", "secret": {"secretName": "certificate"}}]
    flags = [argument for argument in objects.arguments if argument.startswith("--tls-")]
    assert flags == ["--tls-cert=/etc/scorefront/tls", "--tls-key=/etc/scorefront/tls"]
    # A name of digits alone stays a text.
    volumes = rendered({**TLS, "sslSecret": "123"}).pod["spec"]["volumes"]
    assert volumes[0]["secret"] == {"secretName": "123"}


def test_a_rolling_update_never_has_fewer_routers_than_before():
    strategy = rendered(PLAIN).one("Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_on_ipv6_every_listener_is_on_ipv6():
    listeners = [argument for argument in rendered({**TLS, "address": "[::]"}).arguments if ":" in argument]
    assert {"--listen-tls=[::]:8443", "--admin=[::]:9090"} <= set(listeners)


def test_no_variable_that_kubernetes_makes_of_a_service_can_look_like_a_setting():
    assert rendered(PLAIN).pod["spec"]["enableServiceLinks"] is False
