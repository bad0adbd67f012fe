//! How an exchange ended: the closed vocabulary of the router.
//!
//! Status, metric label, error code and `Retry-After` are total functions of an [`Outcome`]; nothing else in the
//! crate decides them. Adding a variant means adding a row to the table below, and the docs test fails until
//! `docs/status-codes.md` explains it.

use http::StatusCode;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $status:literal, $code:literal;)*) => {
        /// How an exchange ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $variant,)*
        }

        impl Outcome {
            /// Every outcome, in the order of [`Outcome::index`].
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// The number of outcomes.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for logs and metric labels: lower case, stable.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The status that the router answers, or logs, for it. `Served` has the replica's own status.
            fn status_code(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The `code` of the error body.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

outcomes! {
    /// The replica answered and the client has the whole answer.
    Served = "served", 200, "Ok";
    /// The scoring script raised: the replica answered 500, the client gets 502 with the replica's body.
    ModelError = "model_error", 502, "ModelError";
    /// The client went away before it had the whole answer. Nobody sees the status; the log says 499.
    ClientGone = "client_gone", 499, "ClientGone";
    /// The request could not be read in exactly one way.
    Malformed = "malformed", 400, "MalformedRequest";
    /// The request line and headers are over a limit.
    HeadTooLarge = "head_too_large", 431, "RequestHeadTooLarge";
    /// The request body is over the limit.
    BodyTooLarge = "body_too_large", 413, "RequestBodyTooLarge";
    /// The request took too long to arrive.
    RequestTooSlow = "request_too_slow", 408, "RequestTooSlow";
    /// The request came without TLS and is sent to where there is some.
    Redirected = "redirected", 308, "HttpsRequired";
    /// The browser's question before a request from another origin, answered by the router.
    Preflight = "preflight", 204, "Preflight";
    /// No credentials, or wrong ones.
    Unauthorized = "unauthorized", 401, "Unauthorized";
    /// The endpoint, or the client's key, is over a rate limit that the operator set.
    RateLimited = "rate_limited", 429, "TooManyRequests";
    /// Wrong credentials, of an address that failed too often to be answered late once more.
    TooManyFailures = "too_many_failures", 429, "TooManyFailedAttempts";
    /// The path is none of the public forms.
    UnknownPath = "unknown_path", 404, "UnknownPath";
    /// No endpoint (or v1 service) of that name.
    UnknownEndpoint = "unknown_endpoint", 404, "UnknownEndpoint";
    /// The endpoint has no deployment of the name that the client asked for.
    UnknownDeployment = "unknown_deployment", 404, "UnknownDeployment";
    /// The deployment had no ready replica for as long as the request could wait.
    NoReplica = "no_replica", 503, "NoReadyReplica";
    /// The queue of the deployment was full, or queueing is switched off.
    QueueFull = "queue_full", 503, "QueueFull";
    /// No slot became free within `max-queue-wait-ms`.
    QueueTimeout = "queue_timeout", 503, "QueueWaitExceeded";
    /// No replica could be connected to.
    ConnectFailed = "connect_failed", 502, "ReplicaConnectFailed";
    /// The replica closed the connection, or answered nonsense, before a whole answer head.
    ReplicaReset = "replica_reset", 502, "ReplicaClosedConnection";
    /// No answer began within `request-timeout-ms`.
    ReplicaTimeout = "replica_timeout", 504, "RequestTimeout";
    /// The answer broke off, or fell silent, after it had begun.
    StreamBroken = "stream_broken", 502, "AnswerBrokenOff";
    /// The router has not seen the whole world yet.
    Starting = "starting", 503, "RouterStarting";
    /// The router is shutting down.
    Draining = "draining", 503, "RouterDraining";
    /// The router is at a limit of its own.
    Overloaded = "overloaded", 503, "RouterOverloaded";
    /// A fault of the router.
    Internal = "internal", 500, "InternalError";
}

impl Outcome {
    /// The position in [`Outcome::ALL`], for arrays of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The status that the router answers for it, or that the log shows where nobody is left to answer.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the answer carries `Retry-After`: on 429 and 503 and nowhere else, because clients of the incumbent retry
    /// whatever carries it.
    pub fn invites_retry(self) -> bool {
        matches!(self.status_code(), 429 | 503)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_codes_are_unique_and_indexes_dense() {
        for (position, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), position);
            for other in &Outcome::ALL[position + 1..] {
                assert_ne!(outcome.label(), other.label());
                assert_ne!(outcome.code(), other.code());
            }
        }
    }

    #[test]
    fn only_429_and_503_invite_a_retry() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.invites_retry(), matches!(outcome.status().as_u16(), 429 | 503));
        }
    }
}
