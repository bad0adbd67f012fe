//! Every metric: name, type, labels, meaning.

use std::fmt::Write;

/// The types of the text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by bucket, their sum and number.
    Histogram,
    /// Always 1; what it says is in the labels.
    Info,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// As it is scraped: counters with `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

impl Metric {
    /// The name of the family: in OpenMetrics, `_total` and `_info` belong to the samples only.
    pub(super) fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(pub(super) const $constant: &Metric =
            &Metric { name: $name, kind: Kind::$kind, labels: $labels, help: $help };)*

        /// Every metric, in the order of the page.
        pub const METRICS: &[&Metric] = &[$($constant,)*];
    };
}

/// What most metrics are by.
const DEPLOYMENT: &[&str] = &["form", "endpoint", "deployment"];

metrics! {
    REQUESTS = Counter "scorefront_requests_total" &["form", "endpoint", "deployment", "status", "outcome"],
        "Requests that are over, by how they ended. Endpoint and deployment are empty where none was found";
    REQUEST_DURATION = Histogram "scorefront_request_duration_seconds" DEPLOYMENT,
        "Request head complete to last byte sent";
    QUEUE_DURATION = Histogram "scorefront_queue_duration_seconds" DEPLOYMENT,
        "Waiting for a slot, requests that gave up included";
    UPSTREAM_DURATION = Histogram "scorefront_upstream_duration_seconds" DEPLOYMENT,
        "Slot taken to last byte from the replica";
    OVERHEAD_DURATION = Histogram "scorefront_overhead_duration_seconds" DEPLOYMENT,
        "What the router itself added: time that was neither queueing nor the replica's";
    REQUEST_SIZE = Histogram "scorefront_request_size_bytes" DEPLOYMENT,
        "Request bodies";
    ANSWER_SIZE = Histogram "scorefront_answer_size_bytes" DEPLOYMENT,
        "Answer bodies";
    IN_FLIGHT = Gauge "scorefront_in_flight_requests" DEPLOYMENT,
        "Requests that hold a slot of a replica";
    QUEUED = Gauge "scorefront_queued_requests" DEPLOYMENT,
        "Requests that wait for a slot";
    QUEUE_LIMIT = Gauge "scorefront_queue_limit_requests" DEPLOYMENT,
        "Most requests that may wait (max-queue-length)";
    QUEUE_PUSHED = Counter "scorefront_queue_pushed_total" DEPLOYMENT,
        "Requests that ever joined the queue";
    QUEUE_POPPED = Counter "scorefront_queue_popped_total" DEPLOYMENT,
        "Requests that ever left the queue, with a slot or without";
    QUEUE_RATE = Gauge "scorefront_queue_rate_per_second" DEPLOYMENT,
        "Requests that replicas complete, smoothed: what Retry-After is computed from; absent until measured";
    SLOTS = Gauge "scorefront_slots" DEPLOYMENT,
        "Slots of all replicas that take new requests; absent where they are unlimited";
    ABANDONED_SLOTS = Gauge "scorefront_abandoned_slots" DEPLOYMENT,
        "Slots that stay taken because the replica still works on a request that was given up";
    REPLICAS = Gauge "scorefront_replicas" &["form", "endpoint", "deployment", "state"],
        "Replicas: ready, left_out (after connect failures), finishing (no new requests)";
    RETRIES = Counter "scorefront_retries_total" DEPLOYMENT,
        "Attempts beyond the first";
    RETRIES_DENIED = Counter "scorefront_retries_denied_total" DEPLOYMENT,
        "Retries that the budget did not allow";
    EJECTIONS = Counter "scorefront_ejections_total" DEPLOYMENT,
        "Times that a replica was left out after connect failures";
    ABANDONED = Counter "scorefront_abandoned_requests_total" DEPLOYMENT,
        "Requests given up while the replica worked on";
    ANSWERS_REFUSED = Counter "scorefront_answers_refused_total" &["form", "endpoint", "deployment", "reason"],
        "Answers of replicas that no client got because of their heads: too_large (max-answer-head-bytes, or more than 100 headers), malformed, transfer_coding (other than chunked), upgrade (that nobody asked for). Each attempt counts";
    MIRRORED = Counter "scorefront_mirrored_requests_total" &["form", "endpoint", "deployment", "status", "result"],
        "Copies for this deployment: answered (by status), failed (no answer), skipped (not sent)";
    MIRROR_DURATION = Histogram "scorefront_mirror_duration_seconds" DEPLOYMENT,
        "Copies: sending to last byte of the answer";
    MIRROR_COMPARISONS = Counter "scorefront_mirror_comparisons_total" &["form", "endpoint", "deployment", "result"],
        "Answered copies whose class of status agreed with the primary's, or differed";
    RATE_LIMITED = Counter "scorefront_rate_limited_total" &["form", "endpoint", "limit"],
        "Requests over a rate limit, by which: endpoint-rate, endpoint-concurrency, key-rate, key-concurrency; only of endpoints that have limits";
    MIRRORS = Gauge "scorefront_mirror_in_flight_requests" &[],
        "Copies under way, over all deployments";
    MIRRORS_LIMIT = Gauge "scorefront_mirror_limit_requests" &[],
        "Most copies that may be under way (max-mirrors)";
    ENDPOINTS = Gauge "scorefront_endpoints" &["form"],
        "Endpoints and v1 services that are served";
    CONNECTIONS = Gauge "scorefront_connections" &[],
        "Client connections open";
    CONNECTIONS_LIMIT = Gauge "scorefront_connections_limit" &[],
        "Most client connections that may be open (max-connections)";
    ACCEPTED = Counter "scorefront_connections_accepted_total" &[],
        "Client connections accepted";
    REFUSED = Counter "scorefront_connections_refused_total" &[],
        "Client connections turned away at the limit";
    CROWDED = Counter "scorefront_connections_refused_per_address_total" &[],
        "Client connections turned away because their address had as many as max-connections-per-address allows";
    REFUSED_DESCRIPTORS = Counter "scorefront_connections_refused_descriptors_total" &[],
        "Client connections turned away because a tenth of process_max_fds is kept for replicas and others";
    USED_UP = Counter "scorefront_connections_used_up_total" &[],
        "Client connections ended because they had as many requests as max-requests-per-connection allows";
    RESTING = Gauge "scorefront_resting_connections" &[],
        "Client connections that have idled for a while and hold no buffers meanwhile";
    LINGERING = Gauge "scorefront_lingering_clients" &[],
        "Clients that go on sending after their last answer, refused or not, and are read over, so that they see it";
    LINGERING_CUT = Counter "scorefront_lingering_clients_cut_total" &[],
        "Those cut off because they were still sending, or silent, when their time was up (linger-timeout-ms)";
    SLOW_CLIENTS = Counter "scorefront_slow_clients_cut_total" &["what"],
        "Clients cut off because they were too slow: body (they sent it silently or below min-body-bytes-per-second), answer (they took it so, min-answer-bytes-per-second)";
    PROXY_HEADERS_WRONG = Counter "scorefront_proxy_protocol_errors_total" &[],
        "Connections of trusted proxies that were closed because they did not begin with a PROXY header (proxy-protocol)";
    HTTP2_ENDED = Counter "scorefront_http2_connections_ended_total" &["reason"],
        "Client connections with HTTP/2 that are over: in_order, client_error (it sent GOAWAY with an error), lost, protocol_error (of the client), flood (of streams that it resets or makes fail, CONTINUATION, tiny DATA), idle_frames (max-idle-frames), too_many_requests (it went on after max-requests-per-connection), idle, silent (no answer to a PING), slow (it took too little), forced (the router stopped)";
    STREAMS_REFUSED = Counter "scorefront_http2_streams_refused_total" &[],
        "HTTP/2 streams refused because their connection had as many requests as max-requests-per-connection allows";
    FLOODED = Counter "scorefront_http2_floods_total" &[],
        "Client connections ended because of more HTTP/2 frames that move nothing than max-idle-frames allows";
    ACCEPT_ERRORS = Counter "scorefront_accept_errors_total" &[],
        "Accepts that failed, for example without file descriptors";
    UPSTREAM_OPENED = Counter "scorefront_upstream_connections_opened_total" &[],
        "Connections to replicas opened";
    UPSTREAM_REUSED = Counter "scorefront_upstream_connections_reused_total" &[],
        "Requests sent to replicas on a connection that was used before";
    SPLICE_PIPES = Gauge "scorefront_splice_pipes" &[],
        "Pipes open for long answers that are not copied; at most max-splice-pipes for each worker";
    SPLICE_BYTES = Counter "scorefront_splice_bytes_total" &[],
        "Bytes of answers that went from the replica's socket to the client's without a copy";
    SPLICE_MISSING = Counter "scorefront_splice_pipes_missing_total" &[],
        "Times that a long answer was to go on without a copy and there was no pipe, so that it was copied (max-splice-pipes)";
    RELAYED = Counter "scorefront_relayed_answers_total" &[],
        "Answers without a length, such as streams of events, that went to the client's socket as they came, piece by piece: with HTTP/1.1, without TLS";
    DISCOVERY_AGE = Gauge "scorefront_discovery_age_seconds" &[],
        "Time since every source was last known to be in step, of a restored world too; absent until the first time";
    DISCOVERY_RESTORED = Gauge "scorefront_discovery_restored" &[],
        "1 while what is served comes from the state file, because the sources have not all answered since the start";
    PUBLICATIONS = Counter "scorefront_discovery_publications_total" &[],
        "Snapshots published";
    DISCOVERY_ERRORS = Counter "scorefront_discovery_errors_total" &[],
        "Reconnects and failed reads of a source";
    INVALID_OBJECTS = Gauge "scorefront_discovery_invalid_objects" &["kind"],
        "Objects with something in them that was not taken as it stands; /debug/snapshot says what";
    STATE_FILE_AGE = Gauge "scorefront_state_file_age_seconds" &[],
        "Age of the world in the state file; absent without one that counts";
    STATE_FILE_SIZE = Gauge "scorefront_state_file_size_bytes" &[],
        "Length of the state file as it was last written";
    STATE_FILE_SAVES = Counter "scorefront_state_file_saves_total" &[],
        "Times that the state file was written";
    STATE_FILE_ERRORS = Counter "scorefront_state_file_errors_total" &[],
        "Times that the state file could not be written, or was refused at the start";
    LOG_WRITTEN = Counter "scorefront_access_log_written_lines_total" &[],
        "Access log lines written";
    LOG_DROPPED = Counter "scorefront_access_log_dropped_lines_total" &["reason"],
        "Access log lines dropped: slow (the target took them too slowly), failing (it could not be written for too long), nowhere (standard output was closed from the start, or is /dev/null)";
    LOG_ERRORS = Counter "scorefront_access_log_errors_total" &[],
        "Failed writes of the access log";
    DRAINING = Gauge "scorefront_draining" &[],
        "1 while the router shuts down";
    BUILD = Info "scorefront_build_info" &["version", "commit"],
        "What is running";
    TLS_HANDSHAKES = Counter "scorefront_tls_handshakes_total" &["result"],
        "TLS handshakes that are over: full, resumed, failed, timed_out, crowded_out (waited for others and never began), crowded_address (its address had as many as it may have)";
    TLS_HANDSHAKES_OPEN = Gauge "scorefront_tls_open_handshakes" &[],
        "TLS handshakes under way";
    TLS_HANDSHAKES_LIMIT = Gauge "scorefront_tls_open_handshakes_limit" &[],
        "Most TLS handshakes that may be under way (tls-handshakes-max); more wait";
    UPSTREAM_HANDSHAKES = Counter "scorefront_upstream_tls_handshakes_total" &["result"],
        "TLS handshakes with replicas that are over: full, resumed, failed, given_up (connect-timeout-ms passed, another connection came free, or the client left)";
    CERTIFICATE_DAYS = Gauge "scorefront_tls_certificate_expiry_days" &["source"],
        "Days until the certificate that clients are shown expires; negative when it has; absent where there is none";
    CERTIFICATE_PROBLEMS = Gauge "scorefront_tls_certificate_problems" &["source"],
        "1 while what the file or Secret holds is not in use, because it is missing or broken; /debug/certificates says why";
    CERTIFICATE_RENEWALS = Counter "scorefront_tls_certificate_renewals_total" &["source"],
        "Times that another certificate was taken up";
    TOKEN_KEYS = Gauge "scorefront_token_keys" &[],
        "Public keys in use for tokens; one that is good for two algorithms counts twice";
    TOKEN_KEYS_AGE = Gauge "scorefront_token_keys_age_seconds" &[],
        "Time since the source of these keys could last be read; absent where it never could";
    TOKEN_KEYS_AGE_LIMIT = Gauge "scorefront_token_keys_age_limit_seconds" &[],
        "Age above which no token is accepted (token-stale-max-ms); absent where no source is set";
    TOKEN_KEYS_RENEWALS = Counter "scorefront_token_keys_renewals_total" &[],
        "Times that another key set was taken up";
    TOKEN_KEYS_FAILURES = Counter "scorefront_token_keys_failures_total" &[],
        "Looks at that source that found no usable key set";
    TOKEN_KEYS_FETCHES = Counter "scorefront_token_keys_fetches_total" &["result"],
        "Fetches from token-jwks-url that are over: changed, unchanged, failed";
    TOKEN_KEYS_EARLY = Counter "scorefront_token_keys_early_fetches_total" &[],
        "Fetches that came early because of a token with an unknown key";
    TOKEN_SUBJECTS = Gauge "scorefront_token_subjects" &["form", "endpoint"],
        "Subjects of tokens that have used up some of their rate; only of endpoints with such limits (key-rate-limit-per-second) and tokens";
    TOKEN_SUBJECTS_LIMIT = Gauge "scorefront_token_subjects_limit" &[],
        "Most of those that are remembered for one endpoint (max-token-subjects, rounded up to eights)";
    TOKEN_SUBJECTS_CROWDED = Counter "scorefront_token_subjects_crowded_total" &["form", "endpoint"],
        "Requests of subjects that found no free place there, and began with what another one owed";
    AUTH_LATE = Counter "scorefront_auth_failures_late_total" &[],
        "Failed attempts that were answered late (auth-failures-free); those refused with 429 instead are counted by outcome";
    AUTH_HELD = Gauge "scorefront_auth_answers_held" &[],
        "Answers to failed attempts that are held back";
    AUTH_HELD_LIMIT = Gauge "scorefront_auth_answers_held_limit" &[],
        "Most answers that may be held back (max-held-auth-answers)";
    AUTH_ADDRESSES = Gauge "scorefront_auth_failure_addresses" &[],
        "Client addresses with failed attempts that are not forgiven yet";
    AUTH_ADDRESSES_LIMIT = Gauge "scorefront_auth_failure_addresses_limit" &[],
        "Most of those that are remembered (max-auth-failure-addresses, rounded up to eights)";
    REPLAY_BYTES = Gauge "scorefront_replay_bytes" &[],
        "What is kept of request bodies for another attempt, of all requests";
    REPLAY_BYTES_LIMIT = Gauge "scorefront_replay_bytes_limit" &[],
        "Most of that (max-replay-bytes-total)";
    REPLAY_WITHOUT = Counter "scorefront_replay_went_without_total" &[],
        "Requests that were forwarded without the chance of another attempt because that limit was reached";
    QUEUED_TOTAL = Gauge "scorefront_waiting_requests" &[],
        "Requests that wait in line, over all deployments; those that a replica failed are not counted";
    QUEUED_TOTAL_LIMIT = Gauge "scorefront_waiting_requests_limit" &[],
        "Most of those (max-queued-requests)";
    CROWDED_OUT = Counter "scorefront_waiting_requests_refused_total" &[],
        "Requests turned away because of that limit";
    REQUESTS_UNDER_WAY = Gauge "scorefront_requests" &[],
        "Requests under way, over all endpoints";
    REQUESTS_LIMIT = Gauge "scorefront_requests_limit" &[],
        "Most of those (max-requests)";
    SHARES_TAKEN = Gauge "scorefront_endpoint_requests" &["form", "endpoint"],
        "Requests under way to an endpoint: what max-share-percent looks at";
    SHARES_REPLAY = Gauge "scorefront_endpoint_replay_bytes" &["form", "endpoint"],
        "What is kept of request bodies to an endpoint for another attempt";
    LIMITED = Counter "scorefront_limited_requests_total" &["form", "endpoint", "limit"],
        "Requests that ran into a limit of the router as a whole, or into the endpoint's share of it: memory, requests, requests-share, queue, queue-share, descriptors (turned away), replay, replay-share (forwarded without the chance of another attempt)";
    MEMORY_RESIDENT = Gauge "scorefront_memory_bytes" &[],
        "Resident memory at the last look, some times a second; 0 without a limit";
    MEMORY_LIMIT = Gauge "scorefront_memory_limit_bytes" &[],
        "Most of that (max-memory-bytes); 0: no limit";
    MEMORY_SHORT = Gauge "scorefront_memory_short" &[],
        "1 while new requests are turned away because memory is over its limit";
    MEMORY_REQUESTS = Counter "scorefront_memory_refused_requests_total" &[],
        "Requests turned away because of that";
    MEMORY_CONNECTIONS = Counter "scorefront_memory_refused_connections_total" &[],
        "Connections closed without a word because of that";
    CPU = Counter "process_cpu_seconds_total" &[],
        "User and system CPU time";
    RESIDENT = Gauge "process_resident_memory_bytes" &[],
        "Resident memory";
    VIRTUAL = Gauge "process_virtual_memory_bytes" &[],
        "Virtual memory";
    OPEN_FDS = Gauge "process_open_fds" &[],
        "Open file descriptors";
    MAX_FDS = Gauge "process_max_fds" &[],
        "Most file descriptors that may be open";
    START_TIME = Gauge "process_start_time_seconds" &[],
        "When the process started, in seconds since 1970";
    THREADS = Gauge "process_threads" &[],
        "Threads";
}

/// One line a metric, for the contract test: type, name, labels.
pub fn contract() -> String {
    let mut lines = String::new();
    for metric in METRICS {
        let _ = writeln!(lines, "{} {}{{{}}}", metric.kind.word(), metric.name, metric.labels.join(","));
    }
    lines
}

/// The table of the documentation.
pub fn markdown() -> String {
    let mut rows = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            rows,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.word(),
            labels.join(", "),
            metric.help.replace('|', "\\|")
        );
    }
    rows
}
