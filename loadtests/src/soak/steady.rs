//! Whether memory and open files stay flat: one look a second, the first third after a warm-up against the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use crate::report::Rounds;
use crate::router::Router;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// The part of a run that is warm-up: one in so many.
const WARM_UP: usize = 10;

/// How much the last third may be above the first, and by how much in any case.
const GROWTH_MAX: f64 = 1.1;
const FILES_SLACK: f64 = 16.0;
const MEMORY_SLACK_MIB: f64 = 8.0;

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Look {
    /// Resident memory of the router.
    pub memory_mib: f64,
    /// Its open files.
    pub files: f64,
}

/// A figure in the first and the last third of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Thirds {
    /// After the warm-up.
    pub first: Rounds,
    /// At the end.
    pub last: Rounds,
    /// Whether the median of the last is within the bounds.
    pub flat: bool,
}

/// The thread that looks.
pub struct Looking {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Look>>>,
}

impl Looking {
    /// Begins.
    pub fn start(router: Arc<Router>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut looks = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                looks.push(Look { memory_mib: router.memory()?.now_mib, files: router.open_files()? as f64 });
                thread::sleep(EVERY);
            }
            Ok(looks)
        });
        Self { stop, thread }
    }

    /// Ends, and says what was seen.
    pub fn stop(self) -> anyhow::Result<Vec<Look>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the looking thread panicked"))?
    }
}

/// Memory in MiB and open files; `None` of too few looks.
pub fn thirds(looks: &[Look]) -> Option<[Thirds; 2]> {
    let memory = compare(looks, |look| look.memory_mib, MEMORY_SLACK_MIB)?;
    Some([memory, compare(looks, |look| look.files, FILES_SLACK)?])
}

fn compare(looks: &[Look], figure: fn(&Look) -> f64, slack: f64) -> Option<Thirds> {
    let warm = looks.get(looks.len() / WARM_UP..)?;
    let third = warm.len() / 3;
    let of = |looks: &[Look]| Rounds::of(looks.iter().map(figure).collect());
    let (first, last) = (of(warm.get(..third)?)?, of(warm.get(warm.len() - third..)?)?);
    Some(Thirds { first, last, flat: last.median <= first.median * GROWTH_MAX + slack })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(files: impl Fn(usize) -> f64) -> Vec<Look> {
        (0..100).map(|number| Look { memory_mib: 50.0, files: files(number) }).collect()
    }

    #[test]
    fn a_leak_is_found_and_noise_is_not() {
        let steady = thirds(&looks(|number| 100.0 + (number % 7) as f64)).unwrap();
        assert!(steady.iter().all(|thirds| thirds.flat), "{steady:?}");
        let [memory, files] = thirds(&looks(|number| 100.0 + number as f64)).unwrap();
        assert!(memory.flat && !files.flat);
    }

    #[test]
    fn what_is_made_in_the_warm_up_is_no_leak() {
        let [_, files] = thirds(&looks(|number| if number < 10 { 1.0 } else { 100.0 })).unwrap();
        assert!(files.flat);
    }

    #[test]
    fn of_nothing_there_is_nothing_to_say() {
        assert!(thirds(&[]).is_none());
    }
}
