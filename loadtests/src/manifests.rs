//! The Kubernetes objects that Scorefront is given: one file of Services, EndpointSlices and Secrets.

use std::net::SocketAddr;

/// The key of every endpoint that asks for one, and the same in base64.
pub const KEY: &str = "loadtest-key-0123456789";
const KEY_BASE64: &str = "bG9hZHRlc3Qta2V5LTAxMjM0NTY3ODk=";

/// One deployment, with one slice for each replica, because replicas on one address differ in their port.
pub struct Deployment<'a> {
    pub endpoint: &'a str,
    pub name: &'a str,
    pub annotations: &'a [(&'a str, &'a str)],
    pub replicas: &'a [SocketAddr],
}

impl Deployment<'_> {
    /// Its Service and its slices, as YAML documents.
    pub fn write(&self, out: &mut String) {
        let Self { endpoint, name, .. } = self;
        let service = format!("{endpoint}-{name}");
        let mut annotations = String::new();
        for (annotation, value) in self.annotations {
            annotations.push_str(&format!("    scorefront.dev/{annotation}: \"{value}\"\n"));
        }
        out.push_str(&format!(
            r#"---
apiVersion: v1
kind: Service
metadata:
  name: {service}
  namespace: loadtests
  labels:
    ml.azure.com/endpoint-name: {endpoint}
    ml.azure.com/deployment-name: {name}
  annotations:
{annotations}spec:
  ports:
  - name: http
    port: 80
"#
        ));
        for (number, replica) in self.replicas.iter().enumerate() {
            out.push_str(&format!(
                r#"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-{number}
  namespace: loadtests
  labels:
    kubernetes.io/service-name: {service}
addressType: IPv4
ports:
- name: http
  port: {}
endpoints:
- addresses: ["{}"]
  conditions:
    ready: true
"#,
                replica.port(),
                replica.ip()
            ));
        }
    }
}

/// The Secret of an endpoint, with [`KEY`] as its primary key.
pub fn write_secret(endpoint: &str, out: &mut String) {
    out.push_str(&format!(
        r#"---
apiVersion: v1
kind: Secret
metadata:
  name: {endpoint}-keys
  namespace: loadtests
  labels:
    ml.azure.com/endpoint-name: {endpoint}
data:
  primaryKey: {KEY_BASE64}
"#
    ));
}
