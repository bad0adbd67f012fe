//! Every setting: name, allowed values, default, meaning, and where it goes.
//!
//! The command line, the environment, the file, `/debug/config`, `docs/configuration.md` and all error messages are
//! made of this one table. The default is what [`Config::default`] holds, so it is written down once.

use crate::ops::access_log::LogTarget;
use crate::ops::logging;

use super::rows::{millis, number, switch};
use super::setting::Slot;
use super::{Config, Source};

mod state;

pub use super::setting::{Group, Setting};

/// All of them, in the order of help and documentation.
pub const SETTINGS: &[Setting] = &[
    LISTEN,
    ADMIN,
    number!("workers", Router, 1, 1024, workers, "Threads that serve requests."),
    SOURCE,
    NAMESPACE,
    KUBECONFIG,
    state::FILE,
    state::MAX_AGE,
    state::KEY_FILE,
    ACCESS_LOG,
    number!(
        "access-log-buffer-bytes",
        Logs,
        64 << 10,
        1 << 30,
        access_log_buffer_bytes,
        "Buffer of the access log for each worker. Lines that find no room, because the target is slow, are dropped and counted."
    ),
    LOG_FORMAT,
    LOG_LEVEL,
    millis!(
        "drain-grace-ms",
        Drain,
        0,
        600_000,
        drain_grace,
        "How long new requests are still served after SIGTERM, while readiness fails and load balancers turn away."
    ),
    millis!(
        "drain-timeout-ms",
        Drain,
        0,
        3_600_000,
        drain_timeout,
        "How long running requests may take to end after the grace."
    ),
    TRUSTED_PROXIES,
    number!(
        "max-connections",
        Clients,
        1,
        1_000_000,
        limits.connections_max,
        "Client connections at a time; more are turned away."
    ),
    number!(
        "max-streams",
        Clients,
        1,
        10_000,
        limits.streams_max,
        "HTTP/2 streams of one client connection at a time."
    ),
    number!(
        "max-head-bytes",
        Clients,
        8192,
        1 << 20,
        limits.head_bytes_max,
        "Request line and headers together; above that 431. Azure AD tokens with groups need more than the 8 to 16 KiB of other proxies."
    ),
    number!("max-headers", Clients, 16, 4096, limits.headers_max, "Number of request headers; above that 431."),
    millis!(
        "head-timeout-ms",
        Clients,
        100,
        300_000,
        limits.head_timeout,
        "Longest time to a whole request head; then 408."
    ),
    millis!(
        "client-idle-timeout-ms",
        Clients,
        1000,
        3_600_000,
        limits.idle_timeout,
        "Longest time between two requests of a client connection. Keep it longer than that of the ingress controller in front."
    ),
    number!("max-body-bytes", Clients, 1024, 1 << 40, limits.body_bytes_max, "Longest request body; above that 413."),
    millis!(
        "body-timeout-ms",
        Clients,
        100,
        3_600_000,
        limits.body_timeout,
        "Longest silence of a request body (then 408), and of a client that should read an answer."
    ),
    millis!(
        "linger-timeout-ms",
        Clients,
        10,
        300_000,
        limits.linger_timeout,
        "How long a client whose request was refused may go on sending; what it sends is thrown away, so that it sees the answer. Silent for a fifth of that, it is cut off too."
    ),
    millis!(
        "goodbye-timeout-ms",
        Clients,
        10,
        60_000,
        limits.goodbye_timeout,
        "How long a client has to take the router's last word on a connection that is about to be closed."
    ),
    millis!(
        "tunnel-idle-ms",
        Clients,
        1000,
        86_400_000,
        limits.tunnel_idle,
        "Longest silence of an upgraded connection (WebSocket), in both directions."
    ),
    switch!(
        "server-timing",
        Clients,
        limits.server_timing,
        "Whether answers carry Server-Timing, which tells clients how long they queued."
    ),
    switch!(
        "pass-authorization",
        Replicas,
        limits.pass_authorization,
        "Whether the Authorization header is passed on to replicas."
    ),
    millis!(
        "connect-timeout-ms",
        Replicas,
        10,
        60_000,
        limits.connect_timeout,
        "Longest time to connect to a replica; then another one is tried."
    ),
    number!("max-attempts", Replicas, 1, 10, limits.attempts_max, "Attempts for one request, the first one included."),
    number!(
        "replay-bytes",
        Replicas,
        0,
        16 << 20,
        limits.replay_bytes_max,
        "Part of a request body that is kept for another attempt."
    ),
    millis!(
        "upstream-idle-ms",
        Replicas,
        0,
        300_000,
        limits.upstream_idle,
        "How long an idle connection to a replica is kept. Keep it shorter than the replicas keep theirs (5 s is common)."
    ),
    number!(
        "upstream-idle-max",
        Replicas,
        0,
        10_000,
        limits.upstream_idle_max,
        "Idle connections that one worker keeps to one replica."
    ),
    number!(
        "max-abandoned-per-replica",
        Replicas,
        1,
        100_000,
        limits.abandoned_max,
        "Where slots are unlimited and scorefront.dev/on-abandon is wait: abandoned requests of one replica whose answers are waited for. Connections of more are closed."
    ),
    number!(
        "max-mirrors",
        Replicas,
        0,
        10_000,
        limits.mirrors_max,
        "Copies of mirrored requests under way at a time; more are not sent."
    ),
    number!(
        "mirror-bytes",
        Replicas,
        0,
        100 << 20,
        limits.mirror_bytes_max,
        "Longest body of a mirrored request; longer ones are not copied."
    ),
];

const LISTEN: Setting = Setting {
    key: "listen",
    group: Group::Router,
    meaning: "Addresses for clients: HTTP/1.1 and HTTP/2 without TLS.",
    slot: Slot::List {
        form: "ADDR",
        allowed: "an IP address and a port, such as 0.0.0.0:8080 or [::]:8080",
        may_be_empty: false,
        read: |config| strings(&config.listen),
        empty: |config| config.listen.clear(),
        push: |config, text| parse_into(text, "is no address", |address| config.listen.push(address)),
    },
};

const ADMIN: Setting = Setting {
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

const SOURCE: Setting = Setting {
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

const NAMESPACE: Setting = Setting {
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

const KUBECONFIG: Setting = Setting {
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

const ACCESS_LOG: Setting = Setting {
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

const LOG_FORMAT: Setting = Setting {
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

const LOG_LEVEL: Setting = Setting {
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

const TRUSTED_PROXIES: Setting = Setting {
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

fn parse_into<T: std::str::FromStr>(text: &str, why: &str, put: impl FnOnce(T)) -> Result<(), String> {
    put(text.parse().map_err(|_| why.to_owned())?);
    Ok(())
}

fn strings(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
