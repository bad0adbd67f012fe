//! Kubernetes objects as YAML, in a few words.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// A world of endpoint `iris` in namespace `models`, with the keys `secret-1` and `secret-2`.
#[derive(Clone, Debug, Default)]
pub struct World {
    text: String,
}

impl World {
    /// Only the keys.
    pub fn new() -> Self {
        let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: iris\n  namespace: models\n  labels: \
                    {ml.azure.com/endpoint-name: iris}\nstringData: {primaryKey: secret-1, secondaryKey: secret-2}\n";
        Self { text: text.to_owned() }
    }

    /// Adds a deployment of `iris` with these annotations (without their prefix) and replicas.
    pub fn deployment(self, name: &str, annotations: &[(&str, &str)], replicas: &[SocketAddr]) -> Self {
        let labels = format!("ml.azure.com/endpoint-name: iris, ml.azure.com/deployment-name: {name}");
        self.service(&format!("iris-{name}"), &labels, annotations).slices(&format!("iris-{name}"), replicas)
    }

    /// Adds a v1 service `name` that anybody may call.
    pub fn v1_service(self, name: &str, replicas: &[SocketAddr]) -> Self {
        let labels = format!("isazuremlapp: \"true\", azuremlappname: {name}");
        self.service(name, &labels, &[("auth-mode", "none")]).slices(name, replicas)
    }

    /// The same world with another primary key.
    pub fn with_primary_key(mut self, key: &str) -> Self {
        self.text = self.text.replace("primaryKey: secret-1", &format!("primaryKey: {key}"));
        self
    }

    /// Adds a Secret with authorities in PEM, under the name of endpoint `iris`.
    pub fn authorities(mut self, name: &str, pem: &str) -> Self {
        let pem = serde_json::Value::from(pem);
        let _ = write!(
            self.text,
            "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: models\n  labels: \
             {{ml.azure.com/endpoint-name: iris}}\nstringData: {{ca.crt: {pem}}}\n"
        );
        self
    }

    fn service(mut self, name: &str, labels: &str, annotations: &[(&str, &str)]) -> Self {
        let annotations: Vec<String> =
            annotations.iter().map(|(key, value)| format!("scorefront.dev/{key}: \"{value}\"")).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            self.text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: models\n  labels: \
             {{{labels}}}\n  annotations: {{{}}}\n",
            annotations.join(", ")
        );
        self
    }

    fn slices(mut self, service: &str, replicas: &[SocketAddr]) -> Self {
        for (number, replica) in replicas.iter().enumerate() {
            let _ = write!(
                self.text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{number}\n  \
                 namespace: models\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports: \
                 [{{name: http, port: {}}}]\nendpoints: [{{addresses: [\"{}\"], conditions: {{ready: true}}, \
                 targetRef: {{kind: Pod, name: {service}-{number}}}}}]\n",
                replica.port(),
                replica.ip()
            );
        }
        self
    }

    /// The manifests.
    pub fn text(&self) -> &str {
        &self.text
    }
}
