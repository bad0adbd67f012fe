//! The limit of open files, at the start: as high as it may be, and compared with what the settings need.
//!
//! Many systems give a process a low limit that it may raise itself (1024 of 524288), for the sake of old programs that
//! cannot use more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::core::descriptors::needed;
use crate::core::vitals::Vitals;

/// Raises the limit of this process to what it may be, and says in the log where that is too little for so many client
/// connections.
pub fn prepare(vitals: &Vitals, connections_max: usize) {
    let limit = raise();
    vitals.descriptors.set_limit(limit.unwrap_or(0));
    let needed = needed(connections_max);
    if let Some(limit) = limit.filter(|&limit| limit < needed) {
        tracing::warn!(
            target: "scorefront::start",
            "max-connections {connections_max} needs {needed} open files, one for each client and one for the replica \
             that it asks, and the limit is {limit}: raise it (ulimit -n, LimitNOFILE=), or lower max-connections"
        );
    }
}

/// The limit that holds from now on; `None` where there is none.
fn raise() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(target: "scorefront::start", %error, "the limit of open files stays as it is");
            limit.current
        }
    };
    current.and_then(|limit| usize::try_from(limit).ok())
}
