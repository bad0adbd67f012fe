//! Every setting: name, allowed values, default, meaning, and where it goes.
//!
//! The command line, the environment, the file, `/debug/config`, `docs/configuration.md` and all error messages are
//! made of this one table. The default is what [`super::Config::default`] holds, so it is written down once.

use super::rows::{millis, number, switch};

pub use super::setting::{Group, Setting};

mod addresses;
mod failures;
mod limits;
mod state;
mod tls;
mod tokens;
mod words;

/// All of them, in the order of help and documentation.
pub const SETTINGS: &[Setting] = &[
    words::LISTEN,
    words::ADMIN,
    number!("workers", Router, 1, 1024, workers, "Threads that serve requests."),
    tls::LISTEN_TLS,
    tls::CERTIFICATE,
    tls::KEY,
    tls::SECRET,
    tls::MIN_VERSION,
    millis!(
        "tls-handshake-timeout-ms",
        Tls,
        100,
        300_000,
        limits.tls_handshake_timeout,
        "Longest time from accepting a connection to the end of its handshake, waiting for tls-handshakes-max included."
    ),
    number!(
        "tls-handshakes-max",
        Tls,
        1,
        1_000_000,
        limits.tls_handshakes_max,
        "Handshakes under way at a time; further ones wait."
    ),
    tls::HANDSHAKES_PER_ADDRESS,
    tls::REDIRECT,
    tls::CLIENT_CA,
    tls::CLIENT_AUTH,
    tokens::JWKS,
    tokens::URL,
    tokens::CA,
    tokens::INTERVAL,
    tokens::INTERVAL_MIN,
    tokens::TIMEOUT,
    tokens::SECRET,
    tokens::ISSUER,
    tokens::AUDIENCE,
    tokens::ENDPOINT_CLAIM,
    tokens::LEEWAY,
    tokens::STALE_MAX,
    tokens::SUBJECTS_MAX,
    words::SOURCE,
    words::NAMESPACE,
    words::KUBECONFIG,
    state::FILE,
    state::MAX_AGE,
    state::KEY_FILE,
    words::ACCESS_LOG,
    number!(
        "access-log-buffer-bytes",
        Logs,
        64 << 10,
        1 << 30,
        access_log_buffer_bytes,
        "Buffer of the access log for each worker. Lines that find no room, because the target is slow, are dropped and counted."
    ),
    words::LOG_FORMAT,
    words::LOG_LEVEL,
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
    words::TRUSTED_PROXIES,
    addresses::PROXY_PROTOCOL,
    number!(
        "max-connections",
        Clients,
        1,
        1_000_000,
        limits.connections_max,
        "Client connections at a time; more are turned away."
    ),
    addresses::CONNECTIONS_MAX,
    addresses::REQUESTS_MAX,
    failures::FREE,
    failures::DELAY_MAX,
    failures::HELD_MAX,
    failures::ADDRESSES_MAX,
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
        "How long a client may go on sending after a refusal, or after the last answer of its connection; what it sends is thrown away, so that it sees the answer. Silent for a fifth of that, it is cut off too."
    ),
    millis!(
        "goodbye-timeout-ms",
        Clients,
        10,
        60_000,
        limits.goodbye_timeout,
        "How long a client has to take the router's last word on a connection that is about to be closed, and a refused one to finish a body of up to 16 KiB, which saves its connection."
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
        "max-splice-pipes",
        Replicas,
        0,
        10_000,
        limits.splice_pipes_max,
        "Pipes of one worker through which long answers go to their clients without a copy, where neither side has TLS; one for each answer whose client takes it slowly. Without one, an answer is copied. 0: all are."
    ),
    millis!(
        "upstream-unacknowledged-ms",
        Replicas,
        0,
        300_000,
        limits.upstream_unacknowledged,
        "How long a replica may leave unacknowledged what was sent to it; then its connection is over, and another replica is tried where that is safe. While nothing is on its way, the kernel asks after each quarter of that, at least a second, whether it is still there. More than 32 KiB on their way are left to request-timeout-ms: the replica may only be slow to read. 0: as long as the kernel waits, a quarter of an hour or for ever."
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
    limits::ANSWER_HEAD,
    limits::REPLAY_TOTAL,
    limits::QUEUED,
    limits::RESETS,
    limits::FAULTY_STREAMS,
    limits::MEMORY,
    limits::REQUESTS,
    limits::SHARE,
    limits::BODY_RATE,
    limits::ANSWER_RATE,
    limits::UNSENT,
    limits::IDLE_FRAMES,
];
