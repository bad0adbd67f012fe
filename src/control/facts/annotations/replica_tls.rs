//! The annotations about TLS towards replicas. A wrong value of one is no value of the other: it closes the deployment,
//! because whoever writes them asks for TLS, and the last good value might have been none.

use super::super::names::is_object_name;
use super::{Annotation, Draft, set};
use crate::core::replica_tls::is_server_name;

pub(super) const CA_SECRET: Annotation = Annotation {
    name: "replica-tls-ca-secret",
    range: "the name of a Secret in the namespace of the Service",
    default: "no TLS",
    meaning: "Speaks TLS with the replicas, and believes certificates of the authorities in `ca.crt` of this Secret, \
              which needs the label `ml.azure.com/endpoint-name`. Without a usable `ca.crt`, and with a wrong value, \
              every request to the deployment is refused.",
    read: |text, draft| set(&mut draft.settings.replica_tls.ca_secret, is_object_name(text).then(|| Some(text.into()))),
    keep: close,
};

pub(super) const SERVER_NAME: Annotation = Annotation {
    name: "replica-tls-server-name",
    range: "a host name without wildcard, or an IP address",
    default: "`<service>.<namespace>.svc`",
    meaning: "The name that certificates of replicas must be for, all of them. Needs replica-tls-ca-secret; a wrong \
              value refuses every request to the deployment.",
    read: |text, draft| {
        set(&mut draft.settings.replica_tls.server_name, is_server_name(text).then(|| Some(text.into())))
    },
    keep: close,
};

fn close(_: &Draft, draft: &mut Draft) {
    draft.settings.replica_tls.is_wrong = true;
}
