//! Facts as rows of the file, and rows as facts.
//!
//! Holds: whatever a row says, facts that come from it are within the same ranges as those that come from objects.
//! Settings are written as annotations for that reason, and read by the same parser.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use http::header::HeaderName;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::format::{hex, unhex};
use crate::control::facts::{annotations, check_authorities, is_name, is_usable, read_annotations};
use crate::core::assemble::EndpointKey;
use crate::core::cors::{Origins, Rules};
use crate::core::facts::{
    AddressFacts, AuthMode, DeploymentFacts, Form, KeyDigest, Name, ObjectRef, OnAbandon, ScoringPort, Seal,
    SecretFacts, Settings, SliceFacts,
};
use crate::core::limiter::Rates;
use crate::core::replica_tls::{Asked, Ca};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceRow {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    created: i64,
    form: FormWord,
    endpoint: String,
    deployment: String,
    annotations: BTreeMap<String, String>,
    /// Whether one about TLS towards replicas was wrong: what it said is not known any more, what it does is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replica_tls_wrong: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SliceRow {
    namespace: Arc<str>,
    name: Arc<str>,
    service: Arc<str>,
    ports: Vec<(Option<Arc<str>>, u16)>,
    addresses: Vec<AddressRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressRow {
    ip: IpAddr,
    uid: Option<Arc<str>>,
    pod: Option<Arc<str>>,
    ready: bool,
    serving: bool,
    terminating: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretRow {
    namespace: Arc<str>,
    name: Arc<str>,
    endpoint: String,
    /// Sealed digests.
    keys: Vec<String>,
    /// Authorities, in DER; none where they were broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<Vec<ByteString>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerRow {
    form: FormWord,
    name: Arc<str>,
    namespace: Arc<str>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormWord {
    Endpoint,
    Service,
}

impl From<Form> for FormWord {
    fn from(form: Form) -> Self {
        match form {
            Form::Endpoint => Self::Endpoint,
            Form::Service => Self::Service,
        }
    }
}

impl From<FormWord> for Form {
    fn from(word: FormWord) -> Self {
        match word {
            FormWord::Endpoint => Self::Endpoint,
            FormWord::Service => Self::Service,
        }
    }
}

impl ServiceRow {
    pub(super) fn of(facts: &DeploymentFacts) -> Self {
        Self {
            namespace: facts.object.namespace.clone(),
            name: facts.object.name.clone(),
            uid: facts.uid.clone(),
            created: facts.created,
            form: facts.form.into(),
            endpoint: facts.endpoint.as_str().to_owned(),
            deployment: facts.deployment.as_str().to_owned(),
            annotations: annotations_of(facts),
            replica_tls_wrong: facts.settings.replica_tls.is_wrong,
        }
    }

    pub(super) fn read(self) -> Result<Arc<DeploymentFacts>, Refusal> {
        let object = ObjectRef { namespace: self.namespace, name: self.name };
        let notes = self.annotations.into_iter().map(|(name, value)| (format!("{}{name}", annotations::PREFIX), value));
        let (draft, problems) = read_annotations("Service", &object, &notes.collect());
        if let Some(problem) = problems.first() {
            return Err(Refusal::Malformed("a Service", problem.to_string()));
        }
        let mut settings = draft.settings();
        settings.replica_tls.is_wrong = self.replica_tls_wrong;
        Ok(Arc::new(DeploymentFacts {
            object,
            uid: self.uid,
            created: self.created,
            form: self.form.into(),
            endpoint: name(&self.endpoint)?,
            deployment: name(&self.deployment)?,
            settings,
            traffic_percent: draft.traffic_percent,
            mirror_percent: draft.mirror_percent,
        }))
    }
}

/// Taken apart in full, so that no setting can be forgotten.
fn annotations_of(facts: &DeploymentFacts) -> BTreeMap<String, String> {
    let Settings {
        request_timeout,
        slots_per_replica,
        queue_wait_max,
        queue_length_max,
        scoring_path,
        scoring_port,
        auth,
        on_abandon,
        retry_reused,
        body_bytes_max,
        cors,
        rates,
        replica_tls: Asked { ca_secret, server_name, is_wrong: _ },
    } = &facts.settings;
    let auth = match auth {
        AuthMode::Key => "key",
        AuthMode::Token => "aml_token",
        AuthMode::None => "none",
    };
    let on_abandon = match on_abandon {
        OnAbandon::Wait => "wait",
        OnAbandon::Close => "close",
    };
    let scoring_port = match scoring_port {
        ScoringPort::Default => None,
        ScoringPort::Named(name) => Some(name.to_string()),
        ScoringPort::Number(number) => Some(number.to_string()),
    };
    let some = [
        ("request-timeout-ms", request_timeout.as_millis().to_string()),
        ("max-concurrent-requests-per-instance", slots_per_replica.to_string()),
        ("max-queue-wait-ms", queue_wait_max.as_millis().to_string()),
        ("max-queue-length", queue_length_max.to_string()),
        ("scoring-path", scoring_path.to_string()),
        ("auth-mode", auth.to_owned()),
        ("on-abandon", on_abandon.to_owned()),
        ("retry-reused", retry_reused.to_string()),
        ("mirror-percent", facts.mirror_percent.to_string()),
    ];
    let others = [
        ("scoring-port", scoring_port),
        ("traffic-percent", facts.traffic_percent.map(|percent| percent.to_string())),
        ("max-body-bytes", body_bytes_max.map(|bytes| bytes.to_string())),
        ("replica-tls-ca-secret", ca_secret.as_deref().map(str::to_owned)),
        ("replica-tls-server-name", server_name.as_deref().map(str::to_owned)),
    ];
    let others = others.into_iter().chain(cors_of(cors)).chain(rates_of(rates));
    let others = others.filter_map(|(name, value)| Some((name, value?)));
    some.into_iter().chain(others).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn cors_of(rules: &Rules) -> [(&'static str, Option<String>); 4] {
    let Rules { origins, methods, headers, max_age_s } = rules;
    let origins = origins.as_ref().map(|origins| match origins {
        Origins::Any => "*".to_owned(),
        Origins::These(origins) => origins.join(","),
    });
    let methods = methods.as_ref().map(|methods| methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","));
    let headers = headers.as_ref().map(|headers| headers.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(","));
    [
        ("cors-origins", origins),
        ("cors-methods", methods),
        ("cors-headers", headers),
        ("cors-max-age-s", max_age_s.map(|seconds| seconds.to_string())),
    ]
}

fn rates_of(rates: &Rates) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let Rates { endpoint, key } = rates;
    let numbers = [
        ("rate-limit-per-second", endpoint.per_second),
        ("rate-limit-burst", endpoint.burst),
        ("rate-limit-concurrent", endpoint.concurrent),
        ("key-rate-limit-per-second", key.per_second),
        ("key-rate-limit-burst", key.burst),
        ("key-rate-limit-concurrent", key.concurrent),
    ];
    numbers.into_iter().map(|(name, number)| (name, number.map(|number| number.to_string())))
}

impl SliceRow {
    pub(super) fn of(facts: &SliceFacts) -> Self {
        let address = |facts: &AddressFacts| AddressRow {
            ip: facts.ip,
            uid: facts.pod_uid.clone(),
            pod: facts.pod_name.clone(),
            ready: facts.ready,
            serving: facts.serving,
            terminating: facts.terminating,
        };
        Self {
            namespace: facts.object.namespace.clone(),
            name: facts.object.name.clone(),
            service: facts.service.clone(),
            ports: facts.ports.clone(),
            addresses: facts.addresses.iter().map(address).collect(),
        }
    }

    pub(super) fn read(self) -> Result<Arc<SliceFacts>, Refusal> {
        let object = ObjectRef { namespace: self.namespace, name: self.name };
        let refuse = |what: String| Refusal::Malformed("an EndpointSlice", format!("{object}: {what} is not allowed"));
        if let Some((name, port)) = self.ports.iter().find(|(_, port)| *port == 0) {
            return Err(refuse(format!("port {port} ({name:?})")));
        }
        // Whether a source may name addresses of this machine was asked when they were read from it.
        if let Some(row) = self.addresses.iter().find(|row| !is_usable(row.ip, true)) {
            return Err(refuse(format!("address {}", row.ip)));
        }
        let address = |row: AddressRow| AddressFacts {
            ip: row.ip,
            pod_uid: row.uid,
            pod_name: row.pod,
            ready: row.ready,
            serving: row.serving,
            terminating: row.terminating,
        };
        let addresses = self.addresses.into_iter().map(address).collect();
        Ok(Arc::new(SliceFacts { object, service: self.service, ports: self.ports, addresses }))
    }
}

impl SecretRow {
    pub(super) fn of(facts: &SecretFacts, seal: &Seal) -> Result<Self, Refusal> {
        let unsealable = || Refusal::Malformed("a Secret", format!("{}: was sealed before", facts.object));
        let keys = facts.keys.iter().map(|key| key.sealed(seal).map(|tag| hex(&tag)).ok_or_else(unsealable));
        Ok(Self {
            namespace: facts.object.namespace.clone(),
            name: facts.object.name.clone(),
            endpoint: facts.endpoint.as_str().to_owned(),
            keys: keys.collect::<Result<_, _>>()?,
            ca: match &facts.ca {
                Ca::Absent => None,
                Ca::Broken => Some(Vec::new()),
                Ca::Read(roots) => Some(roots.iter().map(|der| ByteString(der.to_vec())).collect()),
            },
        })
    }

    pub(super) fn read(self, seal: &Seal) -> Result<Arc<SecretFacts>, Refusal> {
        let object = ObjectRef { namespace: self.namespace, name: self.name };
        // What is no digest is not repeated: it might be a key.
        let refuse = || Refusal::Malformed("a Secret", format!("{object}: a digest has 64 hexadecimal digits"));
        let keys = self.keys.iter().map(|tag| {
            let tag = unhex(tag).ok_or_else(refuse)?;
            Ok(KeyDigest::Sealed { tag, seal: *seal })
        });
        let keys = keys.collect::<Result<_, Refusal>>()?;
        let ca = match self.ca {
            None => Ca::Absent,
            Some(none) if none.is_empty() => Ca::Broken,
            Some(ders) => {
                let roots = check_authorities(ders.into_iter().map(|der| der.0.into()).collect());
                Ca::Read(roots.map_err(|why| Refusal::Malformed("a Secret", format!("{object}: ca.crt {why}")))?)
            }
        };
        Ok(Arc::new(SecretFacts { endpoint: name(&self.endpoint)?, keys, ca, object }))
    }
}

impl OwnerRow {
    pub(super) fn of((key, namespace): &(EndpointKey, Arc<str>)) -> Self {
        Self { form: key.form.into(), name: key.name.clone(), namespace: namespace.clone() }
    }

    pub(super) fn read(self) -> Result<(EndpointKey, Arc<str>), Refusal> {
        let name = name(&self.name)?;
        Ok((EndpointKey { form: self.form.into(), name: name.key().into() }, self.namespace))
    }
}

fn name(text: &str) -> Result<Name, Refusal> {
    if is_name(text) { Ok(Name::new(text)) } else { Err(Refusal::Malformed("a name", format!("{text:?}"))) }
}
