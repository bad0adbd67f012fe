//! The rows about limits over all requests, and on what replicas send.

use crate::control::config::rows::number;
use crate::control::config::setting::{Group, Setting, Slot};

pub(super) const ANSWER_HEAD: Setting = number!(
    "max-answer-head-bytes",
    Replicas,
    8192,
    384 << 10,
    limits.answer_head_bytes_max,
    "Status line and headers of a replica's answer together; above that 502."
);

pub(super) const REPLAY_TOTAL: Setting = number!(
    "max-replay-bytes-total",
    Replicas,
    0,
    1 << 40,
    limits.replay_bytes_total_max,
    "What is kept of request bodies for another attempt, of all requests together. While it is used up, requests are forwarded without the chance of another attempt."
);

pub(super) const QUEUED: Setting = number!(
    "max-queued-requests",
    Clients,
    0,
    1_000_000,
    limits.queued_max,
    "Requests that may wait in line at a time, over all deployments; above that 503."
);

pub(super) const RESETS: Setting = number!(
    "max-pending-reset-streams",
    Clients,
    1,
    100_000,
    limits.reset_streams_max,
    "HTTP/2 streams of one connection that its client may reset before the router has looked at them; with more the connection is ended."
);

pub(super) const FAULTY_STREAMS: Setting = number!(
    "max-faulty-streams",
    Clients,
    1,
    100_000,
    limits.faulty_streams_max,
    "HTTP/2 streams that a client may make fail on one connection by not following the protocol, or by opening more than max-streams; with more the connection is ended."
);

pub(super) const MEMORY: Setting = Setting {
    key: "max-memory-bytes",
    group: Group::Router,
    meaning: "Resident memory of the process above which new requests are turned away with 503, while what runs is served, until it has come down to nine tenths of that. 0: never.",
    slot: Slot::Number {
        min: 0,
        max: 1 << 50,
        read: |config| config.memory_bytes_max.unwrap_or(0),
        write: |config, number| config.memory_bytes_max = Some(number),
    },
};

pub(super) const REQUESTS: Setting = number!(
    "max-requests",
    Clients,
    1,
    10_000_000,
    limits.requests_max,
    "Requests under way at a time, over all endpoints, from their heads to the ends of their answers; above that 503."
);

pub(super) const SHARE: Setting = number!(
    "max-share-percent",
    Clients,
    1,
    100,
    limits.share_percent_max,
    "How much one endpoint may have of what the others leave of max-requests, max-queued-requests and max-replay-bytes-total; above that 503. So there is room left for the others, however one of them is flooded. 100: no shares."
);

pub(super) const BODY_RATE: Setting = number!(
    "min-body-bytes-per-second",
    Clients,
    0,
    1 << 20,
    limits.body_rate_min,
    "Slowest rate of a request body, judged after body-timeout-ms; then 408. Only time in which the client is waited for counts. 0: any rate, as long as it is not silent for body-timeout-ms."
);

pub(super) const ANSWER_RATE: Setting = number!(
    "min-answer-bytes-per-second",
    Clients,
    0,
    1 << 20,
    limits.answer_rate_min,
    "Slowest rate at which a client takes an answer that waits for it, with body-timeout-ms to spare; slower ones are cut off. Pauses of the model do not count. 0: any rate, as long as it takes something within body-timeout-ms."
);

pub(super) const IDLE_FRAMES: Setting = number!(
    "max-idle-frames",
    Clients,
    100,
    1_000_000,
    limits.idle_frames_max,
    "HTTP/2 frames that move nothing (such as PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, empty DATA) that a client may send on one connection. Requests, bodies that are taken and answers that are sent allow more; with too many the connection is ended."
);

pub(super) const UNSENT: Setting = number!(
    "max-unsent-bytes",
    Clients,
    4096,
    4 << 20,
    limits.unsent_max,
    "Bytes of answers that the kernel takes for one client connection beyond what the client has room for. Less costs more system calls for long answers, more costs memory of the kernel for each client that reads slowly."
);
