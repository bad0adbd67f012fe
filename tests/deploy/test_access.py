"""What the account of the router may do."""

from rendering import CHOSEN, PLAIN, TLS, rendered

READS = {
    ("", "services"): {"list", "watch"},
    ("", "secrets"): {"list", "watch"},
    ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
}


def granted(role):
    """Verbs by group and resource. Rules for single objects are not among them."""
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        if "resourceNames" not in rule
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_each_listed_namespace_has_a_role_and_nothing_is_cluster_wide():
    objects = rendered({**PLAIN, "modelNamespaces": ["models", "models-test"]})
    roles, bindings = objects.named("Role"), objects.named("RoleBinding")
    expected = {("models", "scorefront-azureml"), ("models-test", "scorefront-azureml")}
    assert set(roles) == set(bindings) == expected
    for place, role in roles.items():
        assert granted(role) == READS
        binding = bindings[place]
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": place[1]}
        account = {"kind": "ServiceAccount", "name": "azureml-fe-v2", "namespace": "azureml"}
        assert binding["subjects"] == [account]
    assert objects.kinds().isdisjoint({"ClusterRole", "ClusterRoleBinding"})
    assert ["--namespace=models", "--namespace=models-test"] == [
        argument for argument in objects.arguments if argument.startswith("--namespace")
    ]


def test_only_words_that_say_so_give_it_every_secret():
    values = {key: value for key, value in PLAIN.items() if key != "modelNamespaces"}
    objects = rendered({**values, "allowReadingAllSecretsOfTheCluster": True})
    assert granted(objects.one("ClusterRole")) == READS
    assert objects.one("ClusterRoleBinding")["roleRef"]["kind"] == "ClusterRole"
    assert not objects.named("Role")
    assert not [argument for argument in objects.arguments if argument.startswith("--namespace")]


def test_nothing_may_be_written_anywhere():
    settings = {"token-jwks-secret": "azureml/token-keys"}
    everything = {**CHOSEN, "settings": settings, "sslSecret": "certificate", "openshift": {"bindSecurityContextConstraint": True}}
    for kind in ["Role", "ClusterRole"]:
        for role in rendered(everything).named(kind).values():
            for rule in role["rules"]:
                assert set(rule["verbs"]) <= {"get", "list", "watch"}
                assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]


def test_for_its_certificate_it_needs_no_right():
    assert rendered(TLS).named("Role") == rendered(PLAIN).named("Role")
    assert rendered(TLS).named("RoleBinding") == rendered(PLAIN).named("RoleBinding")


def test_the_secret_with_keys_for_tokens_may_be_read_and_no_other():
    objects = rendered({**PLAIN, "settings": {"token-jwks-secret": "azureml/token-keys"}})
    place = ("azureml", "scorefront-azureml-token-keys")
    role, binding = objects.named("Role")[place], objects.named("RoleBinding")[place]
    names = {"resourceNames": ["token-keys"], "verbs": ["get", "list", "watch"]}
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], **names}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "azureml-fe-v2", "namespace": "azureml"}]
    assert "--token-jwks-secret=azureml/token-keys" in objects.arguments
    assert place not in rendered(PLAIN).named("Role")


def test_only_the_pod_of_the_router_gets_the_token():
    objects = rendered(PLAIN)
    assert objects.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert objects.pod["spec"]["automountServiceAccountToken"] is True


def test_openshift_gets_its_binding_by_option():
    assert ("azureml", "azureml-fe-v2-scc") not in rendered(PLAIN).named("RoleBinding")
    objects = rendered({**PLAIN, "openshift": {"bindSecurityContextConstraint": True}})
    binding = objects.named("RoleBinding")["azureml", "azureml-fe-v2-scc"]
    assert binding["roleRef"]["name"] == "system:openshift:scc:nonroot-v2"
