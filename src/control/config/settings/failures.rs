//! The rows about failed attempts of clients to prove who they are.

use crate::control::config::rows::{millis, number};
use crate::control::config::setting::Setting;

pub(super) const FREE: Setting = number!(
    "auth-failures-free",
    Clients,
    1,
    1_000_000,
    limits.failures.free,
    "Failed attempts (wrong keys or tokens) of one client address in a minute that are answered at once. Answers to more are held back, for 100 ms at first and twice as long each time; right credentials are served at any time. An IPv6 /64 counts as one address."
);

pub(super) const DELAY_MAX: Setting = millis!(
    "auth-delay-max-ms",
    Clients,
    0,
    60_000,
    limits.failures.delay_max,
    "How long an answer to a failed attempt may be held back. 0: none is."
);

pub(super) const HELD_MAX: Setting = number!(
    "max-held-auth-answers",
    Clients,
    0,
    1_000_000,
    limits.failures.held_max,
    "Answers to failed attempts that are held back at a time, a tenth of them and one for one address; above that 429 at once."
);

pub(super) const ADDRESSES_MAX: Setting = number!(
    "max-auth-failure-addresses",
    Clients,
    8,
    10_000_000,
    limits.failures.addresses_max,
    "Client addresses whose failed attempts are remembered. Those with the fewest make room for others."
);
