//! What one worker owns, and its thread.
//!
//! A worker is one thread with one single-threaded runtime: a request is accepted, forwarded and answered without
//! ever changing threads, and nothing on its way takes a lock that another worker holds, except to wait in a line.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{io, thread};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::connection::{self, Guard};
use super::pool::Pool;
use super::splice::Pipes;
use super::tls::Tls;
use crate::core::addresses::{Addresses, Place};
use crate::core::dice::Dice;
use crate::core::limits::Limits;
use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;
use crate::ops::access_log::WorkerLog;

/// Sockets that may be on their way to a worker at a time.
const INBOX: usize = 1024;

/// Where the router is on its way out. Phases only advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Serving, but clients are told to go elsewhere.
    Discouraging,
    /// Nothing new; what runs, and what waits in line, is finished.
    Finishing,
    /// What still waits in line is turned away; what runs has a last moment.
    LastCall,
    /// What still runs is cut off.
    Forced,
}

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The world.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Limits of the data path.
    pub limits: Arc<Limits>,
    /// Counters of the router as a whole.
    pub vitals: Arc<Vitals>,
    /// Connections of each client address.
    pub addresses: Arc<Addresses>,
    /// TLS handshakes of each client address.
    pub handshakes: Arc<Addresses>,
    /// Answers to failed attempts that are held back, by client address.
    pub late: Arc<Addresses>,
    /// Connections that may be told at a time that there are too many, or that memory is short.
    pub turned_away: Arc<Semaphore>,
    /// Where the router is on its way out.
    pub phase: watch::Receiver<Phase>,
}

impl Shared {
    /// For a router with this world, these limits and counters, on its way out as `phase` says.
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        limits: Limits,
        vitals: Arc<Vitals>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            snapshot,
            vitals,
            addresses: Arc::new(Addresses::new(limits.connections_per_address_max)),
            handshakes: Arc::new(Addresses::new(limits.tls_handshakes_per_address_max)),
            late: Arc::new(Addresses::new(limits.failures.held_max / 10 + 1)),
            turned_away: Arc::new(Semaphore::new(limits.connections_max / 10 + 1)),
            limits: Arc::new(limits),
            phase,
        }
    }

    /// A place for this address; `None` where it has as many as it may. Trusted proxies need none.
    pub(crate) fn place(&self, places: &Arc<Addresses>, address: IpAddr) -> Option<Option<Place>> {
        if self.limits.trusts(address) {
            return Some(None);
        }
        places.enter(address).ok()
    }
}

#[cfg(test)]
impl Shared {
    /// With the defaults and nothing to route to, for as long as the sender lives.
    pub(crate) fn of_nothing(vitals: Arc<Vitals>) -> (watch::Sender<Phase>, Self) {
        let (sender, phase) = watch::channel(Phase::Running);
        (sender, Self::new(Arc::default(), Limits::default(), vitals, phase))
    }
}

/// What one worker owns.
#[derive(Debug)]
pub struct Worker {
    /// Its number: which shard of the counters is its own.
    pub(crate) index: usize,
    pub(crate) shared: Shared,
    pub(crate) pool: Pool,
    /// For long answers that are not copied.
    pub(crate) pipes: Pipes,
    pub(crate) log: WorkerLog,
    /// Its client connections.
    pub(crate) connections: AtomicUsize,
    seed: AtomicU64,
}

/// A socket on its way to the worker that will serve it.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Counts it as one of that worker's already.
    pub(crate) guard: Guard,
    pub(crate) socket: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    /// How the client speaks TLS, if it does.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Its place among the few that may come while memory is short, where it came then.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// A running worker, from the outside.
#[derive(Debug)]
pub struct Handle {
    pub(crate) worker: Arc<Worker>,
    pub(crate) inbox: mpsc::Sender<Accepted>,
    runtime: tokio::runtime::Handle,
    thread: JoinHandle<()>,
}

/// Tells of the end of a thread, a panic included.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Worker {
    /// Starts the thread of worker `index`, whose end, however it comes, is told to `ended`.
    pub fn start(index: usize, shared: Shared, log: WorkerLog, seed: u64, ended: &Arc<Notify>) -> io::Result<Handle> {
        let worker = Arc::new(Self::new(index, shared, log, seed));
        let (inbox, arrivals) = mpsc::channel(INBOX);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
        let (owned, spawner) = (worker.clone(), runtime.handle().clone());
        let told = Told(ended.clone());
        let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let _told = told;
            runtime.block_on(owned.run(arrivals));
        })?;
        Ok(Handle { worker, inbox, runtime: spawner, thread })
    }

    pub(crate) fn new(index: usize, shared: Shared, log: WorkerLog, seed: u64) -> Self {
        let pool = Pool::new(shared.limits.upstream_idle, shared.limits.upstream_idle_max);
        let pipes = Pipes::new(shared.limits.splice_pipes_max, shared.vitals.clone());
        let (connections, seed) = (AtomicUsize::new(0), AtomicU64::new(seed));
        Self { index, shared, pool, pipes, log, connections, seed }
    }

    /// Random numbers for one request.
    pub(crate) fn dice(&self) -> Dice {
        let seed = self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        Dice::new(seed)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Microseconds on the router's clock.
    pub(crate) fn micros(&self, now: Instant) -> u64 {
        self.shared.vitals.micros(now)
    }

    pub(crate) fn is_discouraging(&self) -> bool {
        *self.shared.phase.borrow() >= Phase::Discouraging
    }

    pub(crate) fn is_finishing(&self) -> bool {
        *self.shared.phase.borrow() >= Phase::Finishing
    }

    /// Serves a socket that another worker accepted.
    fn take(&self, accepted: Accepted) {
        match TcpStream::from_std(accepted.socket) {
            Ok(socket) => connection::spawn(accepted.guard, socket, accepted.peer, accepted.tls, accepted.place),
            Err(_) => self.shared.vitals.connections.accept_errors.bump(),
        }
    }

    /// Serves until nothing new comes and everything that came is done, or until it is forced to stop.
    async fn run(self: Arc<Self>, mut arrivals: mpsc::Receiver<Accepted>) {
        let mut sweep = tokio::time::interval((self.shared.limits.upstream_idle / 4).clamp(SWEEP_MIN, SWEEP_MAX));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut phase = self.shared.phase.clone();
        // Whoever decided the phase is gone: there is nobody left to wait for.
        let (mut finishing, mut forced) = (false, false);
        loop {
            tokio::select! {
                arrival = arrivals.recv(), if !finishing => match arrival {
                    Some(accepted) => self.take(accepted),
                    None => finishing = true,
                },
                _ = sweep.tick() => {
                    self.pool.sweep(Instant::now());
                    self.pipes.sweep();
                }
                changed = phase.changed() => forced = changed.is_err(),
                // Connections end without telling; look again soon.
                () = tokio::time::sleep(FINISH_LOOK), if finishing => {}
            }
            let now = *phase.borrow_and_update();
            finishing |= now >= Phase::Finishing;
            while finishing && let Ok(accepted) = arrivals.try_recv() {
                self.take(accepted);
            }
            if forced || now == Phase::Forced || (finishing && self.connections.load(Ordering::Relaxed) == 0) {
                return;
            }
        }
    }
}

/// Tasks that run before the worker looks for bytes again. Where many connections have large answers to move, a small
/// request waits for no more than these to be seen.
const EVENT_INTERVAL: u32 = 16;
/// Idle connections are looked through at least this rarely, and at least this often: nobody else notices that a replica
/// has closed one.
const SWEEP_MIN: std::time::Duration = std::time::Duration::from_millis(100);
const SWEEP_MAX: std::time::Duration = std::time::Duration::from_secs(1);
/// How often a worker that finishes looks whether it is done.
const FINISH_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

impl Handle {
    /// Runs a task on the worker's thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Waits for its end. Says whether it ended well.
    pub fn join(self) -> bool {
        drop(self.inbox);
        self.thread.join().is_ok()
    }
}
