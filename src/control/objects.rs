//! Kubernetes objects, reduced to the fields that are read: the same types for the API server and for manifests.
//!
//! Holds: of a Secret nothing but the two keys and the authorities is kept, and nothing here prints them.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use serde::Deserialize;

use crate::core::facts::ObjectRef;

/// The kinds that are read. No other is ever asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    EndpointSlice,
    /// `v1/Secret`.
    Secret,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::Secret];

    /// As it is written in manifests.
    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
        }
    }
}

/// `metadata`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace; manifests may leave it out.
    pub namespace: Option<String>,
    /// UID; manifests have none.
    pub uid: Option<String>,
    /// RFC 3339; manifests have none.
    pub creation_timestamp: Option<String>,
    /// For watches.
    pub resource_version: Option<String>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Meta {
    /// The namespace of objects that name none.
    pub const NAMESPACE: &str = "default";

    /// Which object it is.
    pub fn object(&self) -> ObjectRef {
        ObjectRef::new(self.namespace.as_deref().unwrap_or(Self::NAMESPACE), &self.name)
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// `v1/Service`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Metadata.
    pub metadata: Meta,
    /// Specification.
    pub spec: Option<ServiceSpec>,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    /// The labels of its pods.
    pub selector: Option<BTreeMap<String, String>>,
}

/// `discovery.k8s.io/v1/EndpointSlice`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata.
    pub metadata: Meta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Its endpoints, in the sense of Kubernetes.
    pub endpoints: Option<Vec<SliceEndpoint>>,
    /// Its ports.
    pub ports: Option<Vec<SlicePort>>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Addresses of the same pod; consumers use the first.
    pub addresses: Vec<String>,
    /// Conditions.
    pub conditions: Option<Conditions>,
    /// What is behind it.
    pub target_ref: Option<TargetRef>,
}

/// Conditions of an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Unset counts as true.
    pub ready: Option<bool>,
    /// Unset counts as `ready`.
    pub serving: Option<bool>,
    /// Unset counts as false.
    pub terminating: Option<bool>,
}

/// The pod behind an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Its UID.
    pub uid: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// One port of a slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// Its name.
    pub name: Option<String>,
    /// Its number; unset is "all ports".
    pub port: Option<i64>,
    /// `TCP` unless it says otherwise.
    pub protocol: Option<String>,
}

/// `v1/Secret`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    /// Metadata.
    pub metadata: Meta,
    /// What it holds, encoded.
    pub data: Option<SecretData<ByteString>>,
    /// The same in plain text, in manifests; this wins.
    pub string_data: Option<SecretData<String>>,
}

/// The two keys of an endpoint, and the authorities of its replicas.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretData<T> {
    /// `primaryKey`.
    pub primary_key: Option<T>,
    /// `secondaryKey`.
    pub secondary_key: Option<T>,
    /// `ca.crt`.
    #[serde(rename = "ca.crt")]
    pub ca_crt: Option<T>,
}

impl<T> fmt::Debug for SecretData<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretData(…)")
    }
}

/// An object of one of the kinds.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// An EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// A Secret.
    Secret(Box<Secret>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Service(service) => &service.metadata,
            Self::EndpointSlice(slice) => &slice.metadata,
            Self::Secret(secret) => &secret.metadata,
        }
    }

    /// Its kind, namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind(), object: self.meta().object() }
    }
}

/// Kind, namespace and name: what tells one object from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace and name.
    pub object: ObjectRef,
}
