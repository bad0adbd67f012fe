//! The rows whose values are words, addresses or paths.

use super::super::setting::{Group, Setting, Slot};
use crate::control::config::{Config, Source};
use crate::ops::access_log::LogTarget;
use crate::ops::logging;

pub(super) const LISTEN: Setting = Setting {
    key: "listen",
    group: Group::Router,
    meaning: "Addresses for clients: HTTP/1.1 and HTTP/2 without TLS.",
    slot: Slot::List {
        form: "ADDR",
        allowed: "an IP address and a port, such as 0.0.0.0:8080 or [::]:8080; off for none",
        may_be_empty: false,
        read: |config| strings(&config.listen),
        empty: |config| config.listen.clear(),
        push: |config, text| match text {
            "off" => Ok(()),
            _ => parse_into(text, "is no address", |address| config.listen.push(address)),
        },
    },
};

pub(super) const ADMIN: Setting = Setting {
    key: "admin",
    group: Group::Router,
    meaning: "Address of the admin port. It has no authentication.",
    slot: Slot::Text {
        form: "ADDR",
        allowed: "an IP address and a port, such as 127.0.0.1:9090",
        read: |config| config.admin.to_string(),
        write: |config, text| parse_into(text, "is no address", |address| config.admin = address),
    },
};

pub(super) const SOURCE: Setting = Setting {
    key: "source",
    group: Group::Discovery,
    meaning: "Where Services, EndpointSlices and Secrets come from.",
    slot: Slot::List {
        form: "SOURCE",
        allowed: "kubernetes, or manifests:DIR for the YAML files of a directory",
        may_be_empty: false,
        read: |config| strings(&config.sources),
        empty: |config| config.sources.clear(),
        push: push_source,
    },
};

pub(super) const NAMESPACE: Setting = Setting {
    key: "namespace",
    group: Group::Discovery,
    meaning: "Namespaces to look at.",
    slot: Slot::List {
        form: "NS",
        allowed: "names of namespaces: 1 to 63 lower-case letters, digits and inner hyphens",
        may_be_empty: true,
        read: |config| config.namespaces.clone(),
        empty: |config| config.namespaces.clear(),
        push: push_namespace,
    },
};

pub(super) const KUBECONFIG: Setting = Setting {
    key: "kubeconfig",
    group: Group::Discovery,
    meaning: "How to reach the API server.",
    slot: Slot::Text {
        form: "FILE",
        allowed: "the path of a kubeconfig file",
        read: |config| config.kubeconfig.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        write: |config, text| {
            let path = Some(text).filter(|text| !text.is_empty()).ok_or("is empty")?;
            config.kubeconfig = Some(path.into());
            Ok(())
        },
    },
};

pub(super) const ACCESS_LOG: Setting = Setting {
    key: "access-log",
    group: Group::Logs,
    meaning: "Where the access log goes: one JSON line for each request. A file is opened anew on SIGHUP.",
    slot: Slot::Text {
        form: "TARGET",
        allowed: "stdout, off, or the path of a file",
        read: |config| config.access_log.to_string(),
        write: |config, text| {
            config.access_log = text.parse::<LogTarget>()?;
            Ok(())
        },
    },
};

pub(super) const LOG_FORMAT: Setting = Setting {
    key: "log-format",
    group: Group::Logs,
    meaning: "How the trace log on standard error looks.",
    slot: Slot::Text {
        form: "FORMAT",
        allowed: "text or json",
        read: |config| config.log_format.word().to_owned(),
        write: |config, text| {
            config.log_format = text.parse().map_err(|()| "is no format".to_owned())?;
            Ok(())
        },
    },
};

pub(super) const LOG_LEVEL: Setting = Setting {
    key: "log-level",
    group: Group::Logs,
    meaning: "Which lines the trace log has. Can be changed on the admin port while the router runs.",
    slot: Slot::Text {
        form: "FILTER",
        allowed: "off, error, warn, info, debug or trace, or levels by module such as info,scorefront::discovery=warn",
        read: |config| config.log_level.clone(),
        write: |config, text| {
            logging::parse_filter(text).map_err(|_| "is no filter")?;
            text.trim().clone_into(&mut config.log_level);
            Ok(())
        },
    },
};

pub(super) const TRUSTED_PROXIES: Setting = Setting {
    key: "trusted-proxies",
    group: Group::Clients,
    meaning: "Peers whose X-Forwarded-* and x-request-id headers are believed: the ingress controllers in front.",
    slot: Slot::List {
        form: "CIDR",
        allowed: "networks such as 10.0.0.0/8 or fd00::/8, or single addresses, with commas between them",
        may_be_empty: true,
        read: |config| strings(&config.limits.trusted_proxies),
        empty: |config| config.limits.trusted_proxies.clear(),
        push: push_proxies,
    },
};

fn push_source(config: &mut Config, text: &str) -> Result<(), String> {
    let source = match text.split_once(':') {
        None if text == "kubernetes" => Source::Kubernetes,
        Some(("manifests", "")) => return Err("names no directory".to_owned()),
        Some(("manifests", directory)) => Source::Manifests(directory.into()),
        _ => return Err("is no source".to_owned()),
    };
    if config.sources.contains(&source) {
        return Err("is given twice".to_owned());
    }
    config.sources.push(source);
    Ok(())
}

fn push_namespace(config: &mut Config, text: &str) -> Result<(), String> {
    let letters = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !letters || text.is_empty() || text.len() > 63 || text.starts_with('-') || text.ends_with('-') {
        return Err("is no name of a namespace".to_owned());
    }
    if config.namespaces.iter().any(|namespace| namespace == text) {
        return Err("is given twice".to_owned());
    }
    config.namespaces.push(text.to_owned());
    Ok(())
}

fn push_proxies(config: &mut Config, text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim) {
        let network = part.parse().or_else(|_| part.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        config.limits.trusted_proxies.push(network.map_err(|_| "is no network".to_owned())?);
    }
    Ok(())
}

pub(super) fn parse_into<T: std::str::FromStr>(text: &str, why: &str, put: impl FnOnce(T)) -> Result<(), String> {
    put(text.parse().map_err(|_| why.to_owned())?);
    Ok(())
}

pub(super) fn strings(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
