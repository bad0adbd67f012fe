//! How the replicas of a deployment are spoken to: from its annotations and the Secret that they name. Fails closed.

use std::sync::Arc;

use super::super::facts::{DeploymentFacts, ObjectRef, Problem, SecretFacts};
use super::super::replica_tls::{Asked, Ca, ReplicaTls, Roots, Wire, is_server_name};
use super::{EndpointKey, World};

const CA_SECRET: &str = "scorefront.dev/replica-tls-ca-secret";
const SERVER_NAME: &str = "scorefront.dev/replica-tls-server-name";

/// What is wrong, and at which annotation.
type Flaw = (&'static str, String);

/// `before` is what was decided last: where nothing is different, connections that were made for it go on.
pub(super) fn decide(
    world: &World,
    facts: &DeploymentFacts,
    before: Option<&Wire>,
    problems: &mut Vec<Problem>,
) -> Wire {
    let asked = &facts.settings.replica_tls;
    if *asked == Asked::default() {
        return Wire::Plain;
    }
    let found = trusted(world, facts).and_then(|roots| Ok((roots, server_name(facts)?)));
    match (found, before) {
        (Ok((roots, name)), Some(Wire::Tls(before))) if before.roots == roots && before.server_name == name => {
            Wire::Tls(before.clone())
        }
        (Ok((roots, name)), _) => Wire::Tls(Arc::new(ReplicaTls::new(roots, name))),
        (Err((field, why)), _) => {
            let message = format!("{why}; until then every request to the deployment is refused");
            problems.push(Problem { kind: "Service", object: facts.object.clone(), field: field.into(), message });
            Wire::Closed(format!("Service {}: {field}: {why}", facts.object).into())
        }
    }
}

fn trusted(world: &World, facts: &DeploymentFacts) -> Result<Roots, Flaw> {
    let asked = &facts.settings.replica_tls;
    if asked.is_wrong {
        let why = format!("has a value that is not allowed, or {SERVER_NAME} has: correct it");
        return Err((CA_SECRET, why));
    }
    let Some(secret) = secret_of(facts) else {
        let why = "is missing, and replica-tls-server-name alone makes no TLS: name the Secret that has the ca.crt";
        return Err((CA_SECRET, why.to_owned()));
    };
    match world.secret(&secret).map(|facts| &facts.ca) {
        Some(Ca::Read(roots)) => Ok(roots.clone()),
        Some(Ca::Broken) => Err((CA_SECRET, format!("the ca.crt of Secret {secret} cannot be used: correct it"))),
        Some(Ca::Absent) => Err((CA_SECRET, format!("Secret {secret} has no ca.crt: add it"))),
        None => {
            let why = format!(
                "there is no Secret {secret} with the label ml.azure.com/endpoint-name: create it with that label and \
                 a ca.crt"
            );
            Err((CA_SECRET, why))
        }
    }
}

/// The name of the Service inside of the cluster, unless another is given.
fn server_name(facts: &DeploymentFacts) -> Result<Arc<str>, Flaw> {
    if let Some(name) = &facts.settings.replica_tls.server_name {
        return Ok(name.clone());
    }
    let name = format!("{}.{}.svc", facts.object.name, facts.object.namespace);
    if is_server_name(&name) {
        return Ok(name.into());
    }
    Err((SERVER_NAME, format!("is missing, and {name} is no host name: say for which name the certificates are")))
}

/// The Secret that a Service names.
fn secret_of(facts: &DeploymentFacts) -> Option<ObjectRef> {
    let name = facts.settings.replica_tls.ca_secret.clone()?;
    Some(ObjectRef { namespace: facts.object.namespace.clone(), name })
}

impl World {
    fn secret(&self, object: &ObjectRef) -> Option<&Arc<SecretFacts>> {
        self.secrets.get(self.keyring_of_secret.get(object)?)?.get(&object.name)
    }

    /// Whether a Service names this Secret.
    pub(super) fn is_trusted(&self, secret: &ObjectRef) -> bool {
        self.trusting.contains_key(secret)
    }

    /// Notes which Secret a Service names.
    pub(super) fn trust(&mut self, facts: &DeploymentFacts) {
        if let Some(secret) = secret_of(facts) {
            self.trusting.entry(secret).or_default().insert(facts.object.clone());
        }
    }

    /// Forgets it.
    pub(super) fn trust_no_more(&mut self, facts: &DeploymentFacts) {
        let Some(secret) = secret_of(facts) else { return };
        if let Some(services) = self.trusting.get_mut(&secret) {
            services.remove(&facts.object);
            if services.is_empty() {
                self.trusting.remove(&secret);
            }
        }
    }

    /// This Secret is another now.
    pub(super) fn touch_trusting(&mut self, secret: &ObjectRef) {
        let services = self.trusting.get(secret).into_iter().flatten();
        let facts = services.filter_map(|service| self.deployments.get(service));
        self.dirty.extend(facts.map(|facts| EndpointKey::of(facts)));
    }
}
