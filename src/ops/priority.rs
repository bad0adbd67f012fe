//! How threads share the cores where there are not enough of them: requests first, then news from the cluster.
//!
//! A burst of changed EndpointSlices is up to a millisecond of parsing and assembling, ten times what a request needs. With
//! as many workers as cores it takes the core of one, whose requests wait for it. So the thread that follows the cluster,
//! answers the admin port and takes signals is nice: it has what the workers leave, and a tenth of a core where they leave
//! nothing. Between the steps of long work it also yields, as long as that is cheap.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// How much nicer than the workers: a tenth of their weight.
const NICER: i32 = 10;
/// The nicest there is.
const NICEST: i32 = 19;

/// Lets all other threads go before this one, from now on. Threads that it starts later are as nice as it is.
pub fn give_way() {
    if let Err(error) = become_nicer() {
        tracing::debug!(target: "scorefront::start", %error, "the control thread is as important as the workers");
    }
}

fn become_nicer() -> io::Result<()> {
    // On Linux niceness belongs to a thread, and `None` is the one that asks.
    let niceness = getpriority_process(None)?;
    Ok(setpriority_process(None, (niceness + NICER).min(NICEST))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        let of_the_other = std::thread::spawn(move || {
            give_way();
            niceness()
        });
        assert_eq!(of_the_other.join().unwrap(), (before + NICER).min(NICEST));
        assert_eq!(niceness(), before);
    }
}
