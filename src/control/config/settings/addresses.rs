//! The rows about who a client is, by its address, and what one address, or one connection of it, may do.

use crate::control::config::rows::number;
use crate::control::config::setting::{Group, Setting, Slot};

pub(super) const PROXY_PROTOCOL: Setting = Setting {
    key: "proxy-protocol",
    group: Group::Clients,
    meaning: "Whether connections from trusted-proxies begin with a PROXY header (version 1 or 2), which says who the client is; one without is closed. From anybody else no header is taken. Behind a header, the client it names is the peer: X-Forwarded-* count only where that one is a trusted proxy.",
    slot: Slot::Text {
        form: "WORD",
        allowed: "off or required",
        read: |config| if config.limits.proxy_protocol { "required" } else { "off" }.to_owned(),
        write: |config, text| {
            config.limits.proxy_protocol = match text {
                "off" => false,
                "required" => true,
                _ => return Err("is neither".to_owned()),
            };
            Ok(())
        },
    },
};

pub(super) const CONNECTIONS_MAX: Setting = number!(
    "max-connections-per-address",
    Clients,
    0,
    1_000_000,
    limits.connections_per_address_max,
    "Connections of one client address at a time; more are turned away. 0: no limit. An IPv6 /64 counts as one address. Trusted proxies may have any number; the clients that their PROXY headers name may not."
);

pub(super) const REQUESTS_MAX: Setting = number!(
    "max-requests-per-connection",
    Clients,
    0,
    1_000_000_000,
    limits.requests_per_connection_max,
    "Requests of one client connection. After the last one the client is told to open another: by Connection: close on the answer, with HTTP/2 by GOAWAY, after which what is on its way is still served. 0: no limit."
);
