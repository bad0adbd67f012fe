//! One worker without a thread of its own: it runs on the caller's runtime, which can so be turned step by step. For
//! the count of what an exchange costs.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::PATIENCE;
use super::world::World;
use crate::control::discovery::{self, Discovery, Source};
use crate::core::limits::Limits;
use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;
use crate::data::connection::{self, Guard};
use crate::data::worker::{Phase, Shared, Worker};
use crate::ops::access_log::{AccessLog, LogTarget};

/// Room for the log lines of one worker, as in the defaults.
const LOG_BUFFER: usize = 1 << 20;

/// See the head of the file. It cannot drain.
pub struct LoneWorker {
    /// Counters of the router as a whole.
    pub vitals: Arc<Vitals>,
    worker: Arc<Worker>,
    log: AccessLog,
    _phase: watch::Sender<Phase>,
}

impl LoneWorker {
    /// With the defaults, in this world, with an access log to `log`.
    pub async fn start(world: &World, log: &LogTarget) -> io::Result<Self> {
        let snapshot = snapshot(world).await;
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        let log = AccessLog::start(log, 1, LOG_BUFFER, vitals.clone())?;
        let (phase, phases) = watch::channel(Phase::Running);
        let snapshot = Arc::new(ArcSwap::new(snapshot));
        let shared = Shared::new(snapshot, Limits::default(), vitals.clone(), phases);
        let worker = Arc::new(Worker::new(0, shared, log.worker(0), 1));
        Ok(Self { vitals, worker, log, _phase: phase })
    }

    /// Serves a connection that was accepted. Must be called on the runtime.
    pub fn serve(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let peer = socket.peer_addr()?;
        let guard = Guard::new(self.worker.clone());
        connection::spawn(guard, tokio::net::TcpStream::from_std(socket)?, peer, None, None);
        Ok(())
    }

    /// Lines of the access log, once they are all out.
    pub fn lines(&self) -> u64 {
        assert!(self.log.flush(PATIENCE), "the access log is written out");
        self.vitals.access_log.written.read()
    }
}

/// What the router would serve of this world.
pub async fn snapshot(world: &World) -> Arc<Snapshot> {
    let sources = vec![Source::Text { name: "world".to_owned(), text: world.text().to_owned() }];
    let discovery =
        Discovery { sources, namespaces: Vec::new(), workers: 1, router: Default::default(), state_file: None };
    let (snapshot, problems) = discovery::load(discovery, PATIENCE).await.expect("the world is complete");
    assert!(problems.is_empty(), "{problems:?}");
    snapshot
}
