"""Kubernetes objects as the router's source `manifests:DIR` reads them."""

import base64

NAMESPACE = "models"


def deployment(endpoint, name, ports, **annotations):
    """A Service and one EndpointSlice for each replica: a port of loopback, or an address with a port."""
    service = f"{endpoint}-{name}"
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service,
            "namespace": NAMESPACE,
            "labels": {"ml.azure.com/endpoint-name": endpoint, "ml.azure.com/deployment-name": name},
            "annotations": {
                f"scorefront.dev/{annotation.replace('_', '-')}": str(value)
                for annotation, value in annotations.items()
            },
        },
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }
    for number, replica in enumerate(ports):
        address, port = replica if isinstance(replica, tuple) else ("127.0.0.1", replica)
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service}-{number}",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        }


def keys(endpoint, primary, secondary):
    """The Secret with the keys of an endpoint."""

    def encoded(key):
        return base64.b64encode(key.encode()).decode()

    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{endpoint}-keys",
            "namespace": NAMESPACE,
            "labels": {"ml.azure.com/endpoint-name": endpoint},
        },
        "type": "Opaque",
        "data": {"primaryKey": encoded(primary), "secondaryKey": encoded(secondary)},
    }
