//! The rows about limits over all requests, and on what replicas send.

use crate::control::config::rows::number;
use crate::control::config::setting::Setting;

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

pub(super) const IDLE_FRAMES: Setting = number!(
    "max-idle-frames",
    Clients,
    100,
    1_000_000,
    limits.idle_frames_max,
    "HTTP/2 frames that move nothing (such as PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, empty DATA) that a client may send on one connection. Requests, bodies that are taken and answers that are sent allow more; with too many the connection is ended."
);
