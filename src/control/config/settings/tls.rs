//! The rows about TLS.

use super::super::setting::{Group, Setting, Slot};
use super::words::{parse_into, strings};
use crate::control::config::Config;
use crate::control::config::rows::number;
use crate::core::facts::ObjectRef;
use crate::core::limits::TlsVersion;

pub(super) const LISTEN_TLS: Setting = Setting {
    key: "listen-tls",
    group: Group::Tls,
    meaning: "Addresses for clients with TLS: HTTP/1.1 and HTTP/2, as they choose in the handshake.",
    slot: Slot::List {
        form: "ADDR",
        allowed: "an IP address and a port, such as 0.0.0.0:8443",
        may_be_empty: true,
        read: |config| strings(&config.tls.listen),
        empty: |config| config.tls.listen.clear(),
        push: |config, text| parse_into(text, "is no address", |address| config.tls.listen.push(address)),
    },
};

pub(super) const CERTIFICATE: Setting = Setting {
    key: "tls-cert",
    group: Group::Tls,
    meaning: "Certificate chain, the router's own certificate first. The first of all is shown to clients that ask for no name or for an unknown one; the others by their names. Renewed files are taken up while the router runs.",
    slot: Slot::List {
        form: "PATH",
        allowed: "the path of a PEM file, or of a folder with tls.crt or else cert.pem",
        may_be_empty: true,
        read: |config| config.tls.certificates.iter().map(|path| path.display().to_string()).collect(),
        empty: |config| config.tls.certificates.clear(),
        push: |config, text| push_path(text, |path| config.tls.certificates.push(path)),
    },
};

pub(super) const KEY: Setting = Setting {
    key: "tls-key",
    group: Group::Tls,
    meaning: "Private key of the tls-cert at the same place in the list.",
    slot: Slot::List {
        form: "PATH",
        allowed: "the path of a PEM file, or of a folder with tls.key or else key.pem",
        may_be_empty: true,
        read: |config| config.tls.keys.iter().map(|path| path.display().to_string()).collect(),
        empty: |config| config.tls.keys.clear(),
        push: |config, text| push_path(text, |path| config.tls.keys.push(path)),
    },
};

pub(super) const SECRET: Setting = Setting {
    key: "tls-secret",
    group: Group::Tls,
    meaning: "Secret with a certificate chain and its private key, as tls.crt and tls.key or as cert.pem and key.pem. Counts after tls-cert, is watched, and needs no more than get, list and watch on it.",
    slot: Slot::List {
        form: "NS/NAME",
        allowed: "the namespace and the name of a Secret, such as azureml/scorefront-tls",
        may_be_empty: true,
        read: |config| strings(&config.tls.secrets),
        empty: |config| config.tls.secrets.clear(),
        push: push_secret,
    },
};

pub(super) const MIN_VERSION: Setting = Setting {
    key: "tls-min-version",
    group: Group::Tls,
    meaning: "Oldest version of TLS that is spoken.",
    slot: Slot::Text {
        form: "VERSION",
        allowed: "1.2 or 1.3",
        read: |config| config.limits.tls_version_min.to_string(),
        write: |config, text| {
            config.limits.tls_version_min = match text {
                "1.2" => TlsVersion::V12,
                "1.3" => TlsVersion::V13,
                _ => return Err("is no version".to_owned()),
            };
            Ok(())
        },
    },
};

pub(super) const HANDSHAKES_PER_ADDRESS: Setting = number!(
    "tls-handshakes-per-address-max",
    Tls,
    0,
    1_000_000,
    limits.tls_handshakes_per_address_max,
    "Handshakes of one client address under way or waiting at a time; connections with more are closed. 0: no limit. An IPv6 /64 counts as one address. Trusted proxies may have any number."
);

pub(super) const REDIRECT: Setting = Setting {
    key: "redirect-to-https",
    group: Group::Tls,
    meaning: "Whether requests that came without TLS are answered with a redirect (308) to this port, except the health check. What a trusted proxy received with TLS is served.",
    slot: Slot::Text {
        form: "PORT",
        allowed: "off, or the port of HTTPS as clients reach it, such as 443",
        read: |config| config.limits.https_port.map_or_else(|| "off".to_owned(), |port| port.to_string()),
        write: |config, text| {
            config.limits.https_port = match text {
                "off" => None,
                port => Some(port.parse::<std::num::NonZeroU16>().map_err(|_| "is no port")?.get()),
            };
            Ok(())
        },
    },
};

pub(super) const CLIENT_CA: Setting = Setting {
    key: "client-ca",
    group: Group::Tls,
    meaning: "Authorities that certificates of clients are checked against; without it clients are not asked for one.",
    slot: Slot::Text {
        form: "FILE",
        allowed: "the path of a PEM file",
        read: |config| config.tls.client_ca.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        write: |config, text| push_path(text, |path| config.tls.client_ca = Some(path)),
    },
};

pub(super) const CLIENT_AUTH: Setting = Setting {
    key: "client-auth",
    group: Group::Tls,
    meaning: "Whether clients need a certificate, where client-ca is given. One that is shown must always be valid.",
    slot: Slot::Text {
        form: "WORD",
        allowed: "required or accepted",
        read: |config| config.tls.client_auth.to_string(),
        write: |config, text| parse_into(text, "is neither", |auth| config.tls.client_auth = auth),
    },
};

fn push_path(text: &str, put: impl FnOnce(std::path::PathBuf)) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    put(text.into());
    Ok(())
}

fn push_secret(config: &mut Config, text: &str) -> Result<(), String> {
    let secret = secret_of(text)?;
    if config.tls.secrets.contains(&secret) {
        return Err("is given twice".to_owned());
    }
    config.tls.secrets.push(secret);
    Ok(())
}

/// Both parts become parts of a path of the API.
pub(super) fn secret_of(text: &str) -> Result<ObjectRef, String> {
    let is_name = |part: &str, extra: &[u8], max: usize| {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = part.bytes().next().is_some_and(is_plain) && part.bytes().next_back().is_some_and(is_plain);
        ends && part.len() <= max && part.bytes().all(|byte| is_plain(byte) || extra.contains(&byte))
    };
    let parts =
        text.split_once('/').filter(|(namespace, name)| is_name(namespace, b"-", 63) && is_name(name, b"-.", 253));
    let (namespace, name) = parts.ok_or("is no name of a Secret")?;
    Ok(ObjectRef::new(namespace, name))
}
