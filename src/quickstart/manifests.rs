//! The Kubernetes objects of the quick start: one endpoint, two deployments, three replicas, two keys.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Namespace, Services and Secret; `{primary}` and `{secondary}` are the keys.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: iris-blue
  namespace: quickstart
  labels:
    ml.azure.com/endpoint-name: iris
    ml.azure.com/deployment-name: blue
  annotations:
    scorefront.dev/traffic-percent: "90"
    scorefront.dev/max-queue-wait-ms: "2000"
---
apiVersion: v1
kind: Service
metadata:
  name: iris-green
  namespace: quickstart
  labels:
    ml.azure.com/endpoint-name: iris
    ml.azure.com/deployment-name: green
  annotations:
    scorefront.dev/traffic-percent: "10"
    scorefront.dev/max-queue-wait-ms: "2000"
---
apiVersion: v1
kind: Secret
metadata:
  name: iris-keys
  namespace: quickstart
  labels:
    ml.azure.com/endpoint-name: iris
stringData:
  primaryKey: "{primary}"
  secondaryKey: "{secondary}"
"#;

/// The objects with these keys and replicas.
pub(super) fn render(primary: &str, secondary: &str, blue: &[SocketAddr], green: &[SocketAddr]) -> String {
    let mut text = OBJECTS.replace("{primary}", primary).replace("{secondary}", secondary);
    for (deployment, replicas) in [("blue", blue), ("green", green)] {
        for (number, replica) in replicas.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                r#"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: iris-{deployment}-{number}
  namespace: quickstart
  labels:
    kubernetes.io/service-name: iris-{deployment}
addressType: IPv4
ports:
  - name: http
    port: {port}
endpoints:
  - addresses: ["{ip}"]
    conditions:
      ready: true
    targetRef:
      kind: Pod
      name: iris-{deployment}-{number}
"#,
                port = replica.port(),
                ip = replica.ip(),
            );
        }
    }
    text
}
