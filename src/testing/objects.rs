//! Builders of Kubernetes objects, as JSON: what a test does not say is as in the simplest working deployment.

use serde_json::{Value, json};

/// A Service for a deployment, `object` being `namespace/name` and `names` `endpoint/deployment`. Open to everybody.
pub fn mk_service(object: &str, names: &str) -> Value {
    let ((namespace, name), (endpoint, deployment)) = (split(object), split(names));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"ml.azure.com/endpoint-name": endpoint, "ml.azure.com/deployment-name": deployment},
            "annotations": {"scorefront.dev/auth-mode": "none"}
        },
        "spec": {"selector": {"app": name}}
    })
}

/// The same Service with an annotation of ours.
pub fn annotated(mut service: Value, name: &str, value: &str) -> Value {
    service["metadata"]["annotations"][format!("scorefront.dev/{name}")] = json!(value);
    service
}

/// A slice of a Service with ready pods at these addresses, on port 5001.
pub fn mk_slice(object: &str, service: &str, addresses: &[&str]) -> Value {
    let (namespace, name) = split(object);
    let endpoint = |ip: &&str| json!({"addresses": [ip], "conditions": {"ready": true}, "targetRef": {"uid": format!("uid-{ip}"), "name": format!("pod-{ip}")}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 5001}]
    })
}

/// A Secret with one key, which must be given in base64.
pub fn mk_secret(object: &str, endpoint: &str, primary_base64: &str) -> Value {
    let (namespace, name) = split(object);
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"ml.azure.com/endpoint-name": endpoint}},
        "data": {"primaryKey": primary_base64}
    })
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('/').unwrap_or_else(|| panic!("{pair} is not of the form a/b"))
}
