//! Open files, at the start: the limit as high as it may be, compared with what the settings need, and the kernel's table
//! of them as large as it will get.
//!
//! Many systems give a process a low limit that it may raise itself (1024 of 524288), for the sake of old programs that
//! cannot use more.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::core::descriptors::needed;
use crate::core::vitals::Vitals;

/// Raises the limit of this process to what it may be, and says in the log where that is too little for so many client
/// connections, and pipes.
pub fn prepare(vitals: &Vitals, connections_max: usize, pipes_max: usize) {
    let limit = raise();
    vitals.descriptors.set_limit(limit.unwrap_or(0));
    let needed = needed(connections_max, pipes_max);
    if let Some(limit) = limit.filter(|&limit| limit < needed) {
        tracing::warn!(
            target: "scorefront::start",
            "max-connections {connections_max} needs {needed} open files, one for each client and one for the replica \
             that it asks, and two for each pipe (max-splice-pipes), and the limit is {limit}: raise it (ulimit -n, \
             LimitNOFILE=), or lower max-connections"
        );
    }
    if let Err(error) = widen(limit.map_or(needed, |limit| limit.min(needed))) {
        tracing::debug!(target: "scorefront::start", %error, "the table of open files grows as they come");
    }
}

/// Makes the kernel's table large enough for this many, at eight bytes each. It would grow by itself, twice as large each
/// time, but whoever opens a file then waits for every thread of the machine to have let go of the old one (an RCU grace
/// period, some 10 ms), and a worker opens one for each client.
fn widen(files: usize) -> io::Result<()> {
    let last = i32::try_from(files).unwrap_or(i32::MAX).saturating_sub(1);
    let any = std::fs::File::open("/proc/self/status")?;
    drop(rustix::io::fcntl_dupfd_cloexec(any, last)?);
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table_size() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    }

    #[test]
    fn the_table_of_files_is_as_large_as_asked_for() {
        let files = table_size() + 100;
        widen(files).unwrap();
        assert!(table_size() >= files);
        assert!(widen(usize::MAX).is_err());
    }
}
