//! Limits and waits of the data path that hold for the whole router. Those of one deployment are in
//! [`super::facts::Settings`].

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::failures;
use super::patience::Tempo;
use super::token::Rules;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        })
    }
}

/// Every field is a setting of the same name (with its unit in the name there).
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request line and headers together, in bytes. Azure AD tokens with groups need more than the 8-16 KiB of others.
    pub head_bytes_max: usize,
    /// Number of request headers.
    pub headers_max: usize,
    /// Time to the whole head, from its first byte (from the connect for the first request); and from an answer 101 to
    /// both sides having changed protocols.
    pub head_timeout: Duration,
    /// Time between two requests of a client connection. Longer than ingress controllers keep theirs (60 s), so that
    /// it is never the router that closes a connection on which a request is under way.
    pub idle_timeout: Duration,
    /// Longest silence of a request body, and longest time that a client may take nothing of an answer.
    pub body_timeout: Duration,
    /// Slowest rate of a request body, in bytes per second, while the client is waited for. 0: any.
    pub body_rate_min: u64,
    /// The same for a client that takes an answer.
    pub answer_rate_min: u64,
    /// Request body, in bytes. v1 had 100 MB.
    pub body_bytes_max: u64,
    /// Bytes of answers that the kernel takes for one client beyond what that has room for.
    pub unsent_max: u32,
    /// Client connections at a time.
    pub connections_max: usize,
    /// Those of one client address; trusted proxies may have any number. 0: no limit.
    pub connections_per_address_max: usize,
    /// Requests of one client connection, before it is ended in order. 0: no limit.
    pub requests_per_connection_max: u64,
    /// HTTP/2 streams of one client connection at a time.
    pub streams_max: u32,
    /// HTTP/2 streams that a client reset before the router had looked at them, before its connection is ended.
    pub reset_streams_max: usize,
    /// HTTP/2 streams that the router refused or reset because of what the client did wrong, before its connection is
    /// ended.
    pub faulty_streams_max: usize,
    /// HTTP/2 frames that move nothing, before the client's connection is ended.
    pub idle_frames_max: u32,
    /// Oldest version of TLS that clients may speak.
    pub tls_version_min: TlsVersion,
    /// From accepting a connection to the end of its TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// TLS handshakes under way at a time, over all workers.
    pub tls_handshakes_max: usize,
    /// Those of one client address, waiting ones included; trusted proxies may have any number. 0: no limit.
    pub tls_handshakes_per_address_max: usize,
    /// Where clients without TLS are sent: the port of HTTPS as they reach it. `None`: they are served.
    pub https_port: Option<u16>,
    /// Part of a request body that is kept for another attempt, in bytes.
    pub replay_bytes_max: usize,
    /// Time to connect to a replica.
    pub connect_timeout: Duration,
    /// Attempts for one request, the first one included.
    pub attempts_max: u32,
    /// How long an idle connection to a replica is kept: less than common model servers keep theirs (5 s).
    pub upstream_idle: Duration,
    /// Idle connections that one worker keeps to one replica.
    pub upstream_idle_max: usize,
    /// Pipes of one worker through which long answers go without a copy. 0: they are copied.
    pub splice_pipes_max: usize,
    /// How long a replica may leave unacknowledged what was sent to it, before its connection is over. Less than the
    /// default `request-timeout-ms`, so that another replica has time to answer. 0: as long as the kernel waits.
    pub upstream_unacknowledged: Duration,
    /// How long a client may go on sending what nobody reads any more, after a refusal or after its last answer. It may be silent for
    /// a fifth of that.
    pub linger_timeout: Duration,
    /// How long a client has to take the router's last word on a connection that is about to be closed.
    pub goodbye_timeout: Duration,
    /// Longest silence of an upgraded connection (WebSocket) in both directions.
    pub tunnel_idle: Duration,
    /// Where slots are unlimited: abandoned requests of one replica whose answers are waited for, with `on-abandon: wait`.
    pub abandoned_max: usize,
    /// Copies of mirrored requests under way at a time, over all workers.
    pub mirrors_max: usize,
    /// Body of a mirrored request, in bytes; longer ones are not copied.
    pub mirror_bytes_max: usize,
    /// Head of a replica's answer, in bytes.
    pub answer_head_bytes_max: usize,
    /// What is kept of request bodies for other attempts, of all requests together, in bytes.
    pub replay_bytes_total_max: usize,
    /// Requests in line, over all deployments.
    pub queued_max: usize,
    /// Requests under way, over all endpoints.
    pub requests_max: usize,
    /// How much of what others leave of these three one endpoint may have, in percent.
    pub share_percent_max: u32,
    /// Whether answers carry `Server-Timing`.
    pub server_timing: bool,
    /// Whether `Authorization` is passed on to replicas.
    pub pass_authorization: bool,
    /// What tokens must say.
    pub tokens: Rules,
    /// Subjects of tokens whose share of the limits of keys is remembered, for each endpoint.
    pub token_subjects_max: usize,
    /// How failed attempts are slowed.
    pub failures: failures::Rules,
    /// Peers whose `X-Forwarded-*` and `x-request-id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from those begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 << 10,
            headers_max: 100,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(30),
            body_rate_min: 500,
            answer_rate_min: 500,
            body_bytes_max: 100 << 20,
            unsent_max: 32 << 10,
            connections_max: 10_000,
            connections_per_address_max: 2000,
            requests_per_connection_max: 0,
            streams_max: 128,
            reset_streams_max: 20,
            faulty_streams_max: 100,
            idle_frames_max: 10_000,
            tls_version_min: TlsVersion::V12,
            tls_handshake_timeout: Duration::from_secs(5),
            tls_handshakes_max: 1000,
            tls_handshakes_per_address_max: 200,
            https_port: None,
            replay_bytes_max: 64 << 10,
            connect_timeout: Duration::from_secs(1),
            attempts_max: 3,
            upstream_idle: Duration::from_secs(4),
            upstream_idle_max: 128,
            splice_pipes_max: 64,
            upstream_unacknowledged: Duration::from_secs(4),
            linger_timeout: Duration::from_secs(5),
            goodbye_timeout: Duration::from_secs(1),
            tunnel_idle: Duration::from_secs(300),
            abandoned_max: 1000,
            mirrors_max: 64,
            mirror_bytes_max: 1 << 20,
            answer_head_bytes_max: 256 << 10,
            replay_bytes_total_max: 128 << 20,
            queued_max: 10_000,
            requests_max: 20_000,
            share_percent_max: 80,
            server_timing: true,
            pass_authorization: false,
            tokens: Rules::default(),
            token_subjects_max: 10_000,
            failures: failures::Rules::default(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

impl Limits {
    /// What is asked of a client that sends a body.
    pub fn body_tempo(&self) -> Tempo {
        Tempo { grace: self.body_timeout, bytes_per_second: self.body_rate_min }
    }

    /// What is asked of a client that takes an answer.
    pub fn answer_tempo(&self) -> Tempo {
        Tempo { grace: self.body_timeout, bytes_per_second: self.answer_rate_min }
    }

    /// Whether this peer's word about the client is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}
