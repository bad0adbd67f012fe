//! When the state file is read, served from and written: never on the control thread, which must not wait for a disk.
//!
//! Holds:
//! - it is read once, before the feeds begin; the names in it keep their owners, whatever is served;
//! - its world is served only while the sources have not all answered since the start, and not before one of them has
//!   failed or they have had [`HEAD_START`]: a restart beside a healthy API server serves nothing old;
//! - only what the sources said is ever written, at most every [`SAVE_EVERY`], one at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::{Kept, Origin, Refusal, StateFile};
use crate::control::publish::TARGET;
use crate::core::assemble::{Facts, World};
use crate::core::facts::{ObjectRef, Problem};
use crate::core::vitals::{Stamp, Vitals};

/// How long the sources have before the file is served from, as long as none has failed.
const HEAD_START: Duration = Duration::from_secs(3);
/// The shortest time between two writes.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// After this time a file is written anew though nothing has changed: it must not look older than what it says.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// The longest that reading the file may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A write that takes longer is reported; it goes on.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// See the head of the file.
pub(in crate::control) struct Keeper {
    file: StateFile,
    origin: Origin,
    vitals: Arc<Vitals>,
    /// What was read, until it is served or not needed any more.
    restorable: Option<(World, Stamp)>,
    restore_at: Instant,
    /// Whether something has changed since the last write.
    is_stale: bool,
    /// When every source was in step, as the file says.
    saved_in_step_us: u64,
    save_at: Instant,
    saving: Option<Saving>,
}

struct Saving {
    written: oneshot::Receiver<Result<u64, Refusal>>,
    as_of: Stamp,
    in_step_us: u64,
    /// When to complain.
    due: Option<Instant>,
}

/// What the keeper was waiting for.
pub(in crate::control) enum Event {
    /// Time to look again.
    Due,
    /// This is wrong with the file now, or nothing any more.
    Told(Option<Problem>),
}

impl Keeper {
    /// Reads the file. What is wrong with it, if anything, comes with it.
    pub(in crate::control) async fn open(
        file: StateFile,
        origin: Origin,
        vitals: Arc<Vitals>,
    ) -> (Self, Option<Problem>) {
        let (reader, of) = (file.clone(), origin.clone());
        let read = aside(move || -> Result<_, Refusal> {
            let kept = reader.read(&of, SystemTime::now())?;
            Ok(kept.map(|kept| (World::of(kept.facts), kept.as_of)))
        });
        let now = Instant::now();
        let mut keeper = Self {
            file,
            origin,
            vitals,
            restorable: None,
            restore_at: now + HEAD_START,
            is_stale: true,
            saved_in_step_us: 0,
            save_at: now,
            saving: None,
        };
        let problem = match timeout(READ_TIMEOUT, read).await {
            Ok(Ok(Ok(Some((world, as_of))))) => {
                keeper.found(world, as_of);
                None
            }
            Ok(Ok(Ok(None))) => None,
            Ok(Ok(Err(refusal))) => Some(format!("{refusal}; it is not used, and will be replaced")),
            Ok(Err(_)) => Some("cannot be read: the reader crashed".to_owned()),
            Err(_) => Some(format!("cannot be read within {} s; it is not used", READ_TIMEOUT.as_secs())),
        };
        let problem = problem.map(|message| keeper.problem(message));
        (keeper, problem)
    }

    fn found(&mut self, world: World, as_of: SystemTime) {
        let age = SystemTime::now().duration_since(as_of).unwrap_or_default();
        let stamp = Stamp { age, at: std::time::Instant::now() };
        *self.vitals.state_file.as_of.lock() = Some(stamp);
        tracing::info!(target: TARGET, file = %self.file.path.display(), age_s = age.as_secs(), "state file read");
        self.restorable = Some((world, stamp));
    }

    /// The world in the file, as long as it is not served.
    pub(in crate::control) fn world(&self) -> Option<&World> {
        self.restorable.as_ref().map(|(world, _)| world)
    }

    /// A source has failed: nothing is gained by waiting for it.
    pub(in crate::control) fn source_failed(&mut self) {
        self.restore_at = Instant::now();
    }

    /// The world in the file, when it is time to serve it. The sources have not all answered yet.
    pub(in crate::control) fn restore(&mut self) -> Option<World> {
        let is_due = Instant::now() >= self.restore_at;
        let (world, as_of) = self.restorable.take_if(|_| is_due)?;
        let age_s = as_of.age_at(std::time::Instant::now()).as_secs();
        tracing::warn!(target: TARGET, file = %self.file.path.display(), age_s, "serving a restored world: the sources do not answer");
        *self.vitals.discovery.restored.lock() = Some(as_of);
        Some(world)
    }

    /// What is served now is what the sources say, and was in step then. `has_changed` since the last call.
    pub(in crate::control) fn live(&mut self, has_changed: bool, in_step_us: u64, facts: impl FnOnce() -> Facts) {
        self.restorable = None;
        if let Some(as_of) = self.vitals.discovery.restored.lock().take() {
            let age_s = as_of.age_at(std::time::Instant::now()).as_secs();
            tracing::info!(target: TARGET, age_s, "the restored world was replaced by a live one");
        }
        self.is_stale |= has_changed;
        let refresh_us = u64::try_from(REFRESH_EVERY.as_micros()).unwrap_or(u64::MAX);
        let is_wanted = self.is_stale || in_step_us.saturating_sub(self.saved_in_step_us) >= refresh_us;
        if is_wanted && self.saving.is_none() && Instant::now() >= self.save_at {
            self.save(in_step_us, facts());
        }
    }

    fn save(&mut self, in_step_us: u64, facts: Facts) {
        let now = Instant::now();
        let age = Duration::from_micros(self.vitals.micros(now.into_std()).saturating_sub(in_step_us));
        let as_of = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let (file, origin) = (self.file.clone(), self.origin.clone());
        let written = aside(move || file.write(&Kept { as_of, facts }, &origin));
        let as_of = Stamp { age, at: now.into_std() };
        self.is_stale = false;
        self.save_at = now + SAVE_EVERY;
        self.saving = Some(Saving { written, as_of, in_step_us, due: Some(now + WRITE_PATIENCE) });
    }

    /// Waits for whatever is next, for ever if that is nothing. May be given up at any time.
    pub(in crate::control) async fn next(&mut self) -> Event {
        if let Some(saving) = &mut self.saving {
            let due = saving.due.unwrap_or_else(far);
            return match tokio::time::timeout_at(due, &mut saving.written).await {
                Ok(written) => self.saved(written),
                Err(_) => {
                    saving.due = None;
                    Event::Told(Some(
                        self.problem(format!("takes longer than {} s to write", WRITE_PATIENCE.as_secs())),
                    ))
                }
            };
        }
        let wake = match (&self.restorable, self.is_stale) {
            (Some(_), _) => self.restore_at,
            // Before the first live world there is nothing to write, and then there will be an update.
            (None, true) if self.save_at > Instant::now() => self.save_at,
            (None, _) => far(),
        };
        tokio::time::sleep_until(wake).await;
        Event::Due
    }

    fn saved(&mut self, written: Result<Result<u64, Refusal>, oneshot::error::RecvError>) -> Event {
        let Some(Saving { as_of, in_step_us, .. }) = self.saving.take() else { return Event::Due };
        let message = match written {
            Ok(Ok(bytes)) => {
                self.saved_in_step_us = in_step_us;
                *self.vitals.state_file.as_of.lock() = Some(as_of);
                self.vitals.state_file.bytes.store(bytes, Ordering::Relaxed);
                self.vitals.state_file.saves.bump();
                return Event::Told(None);
            }
            Ok(Err(refusal)) => format!("cannot be written: {refusal}"),
            Err(_) => "cannot be written: the writer crashed".to_owned(),
        };
        self.is_stale = true;
        self.save_at = Instant::now() + SAVE_EVERY;
        Event::Told(Some(self.problem(format!("{message}; a restart could not be served from it"))))
    }

    fn problem(&self, message: String) -> Problem {
        self.vitals.state_file.errors.bump();
        let object = ObjectRef { namespace: "".into(), name: self.part() };
        Problem { kind: "File", object, field: "state-file".into(), message }
    }

    /// What the file is called in messages.
    pub(in crate::control) fn part(&self) -> Arc<str> {
        self.file.path.display().to_string().into()
    }
}

/// Does something on a thread of its own, which nobody waits for at the end: a disk may hang for ever.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("state file".to_owned());
    // Without a thread the sender is dropped, and whoever waits is told.
    let _ = thread.spawn(move || tell.send(work()));
    told
}

/// Later than any router lives.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365)
}
