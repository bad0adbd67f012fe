//! What changes while a soak runs: replicas, keys, certificates, endpoints, and the file of the access log.
//!
//! A thread that does something every second. What it starts is bounded: a replica that was taken out is dropped after
//! [`RETIREMENT`] steps.

use std::collections::VecDeque;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::authority::Authority;
use super::replica::Replica;
use super::world::{Endpoint, World};
use crate::router::Router;

/// Time between two steps.
const STEP: Duration = Duration::from_secs(1);

/// Steps that a replica lives on after it was taken out: longer than any request lasts.
const RETIREMENT: usize = 15;

/// How often things changed.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Changes {
    /// Replicas that came, and others that went.
    pub rollouts: u32,
    /// Replicas that died.
    pub deaths: u32,
    /// New keys.
    pub keys: u32,
    /// New certificates.
    pub certificates: u32,
    /// Endpoints that came, and others that went.
    pub endpoints: u32,
    /// New files of the access log.
    pub rotations: u32,
}

/// The thread.
pub struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Changes>>,
}

impl Churn {
    /// Begins.
    pub fn start(world: World, authority: Authority, router: Arc<Router>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut changing = Changing { world, authority, router, retired: VecDeque::new(), changes: Changes::default() };
        let thread = thread::spawn(move || {
            let started = Instant::now();
            for step in 1.. {
                thread::sleep((started + STEP * step).saturating_duration_since(Instant::now()));
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                changing.step(step)?;
            }
            Ok(changing.changes)
        });
        Self { stop, thread }
    }

    /// Ends, and says what was changed.
    pub fn stop(self) -> anyhow::Result<Changes> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the churn panicked"))?
    }
}

struct Changing {
    world: World,
    authority: Authority,
    router: Arc<Router>,
    /// Replicas that were taken out, by steps.
    retired: VecDeque<Option<Replica>>,
    changes: Changes,
}

impl Changing {
    fn step(&mut self, step: u32) -> anyhow::Result<()> {
        let every = |steps: u32| step.is_multiple_of(steps);
        let mut retired = None;
        if every(2) {
            retired = self.world.replace(Endpoint::Moving)?;
            self.changes.rollouts += 1;
        }
        if every(3) {
            // It is gone before the router hears of it, as after a crash.
            drop(self.world.replace(Endpoint::Dying)?);
            self.changes.deaths += 1;
        }
        if every(4) {
            self.world.next_comet();
            self.changes.endpoints += 1;
        }
        // Clients take the new key half way to the next one, when the router has long known it.
        match step % 10 {
            5 => {
                self.world.turn_key();
                self.changes.keys += 1;
            }
            0 => self.world.use_new_key(),
            _ => {}
        }
        if every(7) {
            self.authority.renew()?;
            self.changes.certificates += 1;
        }
        if every(60) || step == 10 {
            self.rotate()?;
            self.changes.rotations += 1;
        }
        self.retired.push_back(retired);
        if self.retired.len() > RETIREMENT {
            self.retired.pop_front();
        }
        self.router.set_world(&self.world.manifests())
    }

    /// Moves the access log away and asks for a new one, as logrotate does.
    fn rotate(&self) -> anyhow::Result<()> {
        let old = self.router.log.with_extension("log.1");
        fs::rename(&self.router.log, &old).context("rotate the access log")?;
        let asked = Command::new("kill").args(["-HUP", &self.router.id().to_string()]).status();
        anyhow::ensure!(asked.context("start kill")?.success(), "the router could not be asked for a new log");
        Ok(())
    }
}
