//! What is alive: counters and gates that outlive every snapshot.
//!
//! Snapshots hold facts and come and go; they point at these by `Arc`, and the next snapshot takes them over by
//! identity. Whoever holds a lease holds the same object to the end, however often its replica flaps meanwhile.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::count::{Counter, Histogram, StatusCounts};
use super::gate::Gate;
use super::outcome::Outcome;
use super::pace::Pace;
use super::slots::{Level, Slots, Standing};

/// Gives every replica state a number of its own.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Live counters of one replica.
#[derive(Debug)]
#[repr(align(128))]
pub struct ReplicaState {
    serial: u64,
    slots: Slots,
    /// Microseconds on the router's clock until when it is left out, where it is. Written before it is left out.
    out_until_us: AtomicU64,
    /// Connect failures since the last success.
    failures: AtomicU32,
    /// How often in a row it was left out.
    times_out: AtomicU32,
    /// Slots whose request was given up and which the replica still works on.
    abandoned: AtomicUsize,
    /// Requests it has answered or failed.
    pub requests: Counter,
    /// Connects that failed.
    pub connect_failures: Counter,
}

impl ReplicaState {
    /// Connect failures in a row after which a replica is left out.
    pub const FAILURES_MAX: u32 = 3;
    /// The longest time that a replica is left out, in microseconds.
    pub const OUT_MAX_US: u64 = 30_000_000;

    /// With `limit` slots, all free.
    pub fn new(limit: u32) -> Self {
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            slots: Slots::new(limit),
            out_until_us: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            times_out: AtomicU32::new(0),
            abandoned: AtomicUsize::new(0),
            requests: Counter::default(),
            connect_failures: Counter::default(),
        }
    }

    /// Its number, unique in the process: what pools of connections are keyed by.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Slots and how many are taken.
    pub fn level(&self) -> Level {
        self.slots.level()
    }

    /// Takes a slot. A replica that is left out is taken only when its time has come by `now_us`, and then this
    /// request is the one that tries it: it stays out for everybody else.
    pub fn try_claim(&self, now_us: Option<u64>) -> bool {
        self.slots.try_take() || (self.is_due(self.level(), now_us) && self.slots.try_take_to_try())
    }

    /// Gives a slot back without looking at who waits; that is [`Gate::release`].
    pub fn unclaim(&self) {
        self.slots.give_back();
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.slots.set_limit(limit);
    }

    /// It left the list: no new request. If it is left out, it is to be tried once it comes back, because nobody looks
    /// at the clock for a replica that is away.
    pub(crate) fn withdraw(&self) {
        self.slots.set_limit(0);
        self.give_another_try();
    }

    /// If it is left out, its time has come: what failed there is no more, as after a restart at another address.
    pub(crate) fn give_another_try(&self) {
        self.slots.turn(Standing::Out, Standing::Due);
    }

    /// Whether a slot just done with may go straight to the next request.
    pub(crate) fn may_be_passed_on(&self) -> bool {
        let level = self.level();
        level.taken <= level.limit && level.standing == Standing::In
    }

    /// Whether it is left out for now, or tried by one request.
    pub fn is_left_out(&self) -> bool {
        self.level().standing != Standing::In
    }

    /// Whether a request may take a slot at this level.
    pub(crate) fn is_usable(&self, level: Level, now_us: Option<u64>) -> bool {
        level.has_room() && (level.standing == Standing::In || self.is_due(level, now_us))
    }

    fn is_due(&self, level: Level, now_us: Option<u64>) -> bool {
        match level.standing {
            Standing::Out => now_us.is_some_and(|now| now >= self.out_until_us.load(Ordering::Relaxed)),
            Standing::Due => true,
            Standing::In | Standing::Tried => false,
        }
    }

    /// Notes that its time has come, so that whoever finds a free slot later needs no clock to know.
    pub(crate) fn fall_due(&self, now_us: u64) {
        let level = self.level();
        if level.standing == Standing::Out && self.is_due(level, Some(now_us)) {
            self.slots.turn(Standing::Out, Standing::Due);
        }
    }

    /// Leaves it out for `backoff_us`. Says whether it did: requests that fail together leave it out once.
    pub(crate) fn leave_out(&self, now_us: u64, backoff_us: u64) -> bool {
        if self.level().standing == Standing::Out {
            return false;
        }
        self.out_until_us.store(now_us.saturating_add(backoff_us), Ordering::Relaxed);
        self.times_out.fetch_add(1, Ordering::Relaxed);
        self.slots.stand(Standing::Out)
    }

    pub(crate) fn readmit(&self) {
        self.slots.stand(Standing::In);
    }

    /// A connect succeeded. Says whether the replica had been left out until now.
    #[must_use = "a replica that is used again has slots to hand out: pump its gate"]
    pub fn connect_succeeded(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.times_out.store(0, Ordering::Relaxed);
        }
        self.is_left_out() && self.slots.stand(Standing::In)
    }

    /// A connect failed. Where that makes enough failures in a row, says for how many microseconds the replica
    /// should be left out: 1 s, doubling up to 30 s.
    pub fn connect_failed(&self) -> Option<u64> {
        self.connect_failures.bump();
        let in_a_row = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let doublings = self.times_out.load(Ordering::Relaxed).min(5);
        (in_a_row >= Self::FAILURES_MAX).then(|| (1_000_000_u64 << doublings).min(Self::OUT_MAX_US))
    }

    /// Slots whose request was given up and which the replica still works on.
    pub fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Counts a slot as abandoned until the guard is dropped.
    pub fn abandon(self: &Arc<Self>) -> Abandoned {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        Abandoned(self.clone())
    }
}

/// Counts one abandoned slot for as long as it lives.
#[derive(Debug)]
pub struct Abandoned(Arc<ReplicaState>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abandoned.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Live counters of one deployment.
#[derive(Debug)]
pub struct DeploymentState {
    /// Admission.
    pub gate: Gate,
    /// How fast it works, and how often it was retried; looked at only on slow paths.
    pub pace: Mutex<Pace>,
    /// One for each worker, once it has something to count: of thousands of deployments most idle, and each shard is
    /// kilobytes.
    shards: Box<[OnceLock<Box<DeploymentShard>>]>,
}

/// What one worker counts for one deployment.
#[derive(Debug)]
#[repr(align(128))]
pub struct DeploymentShard {
    /// Exchanges by how they ended, other than `served`.
    pub outcomes: [Counter; Outcome::COUNT],
    /// Served exchanges by the status of the replica.
    pub served: StatusCounts,
    /// Start to last byte, µs.
    pub total: Histogram,
    /// Waiting for a slot, µs; every request that was admitted or gave up waiting.
    pub queue: Histogram,
    /// Slot taken to last byte of the answer, µs; requests that reached a replica.
    pub upstream: Histogram,
    /// What the router itself added, µs; requests that reached a replica.
    pub overhead: Histogram,
    /// Request bodies, bytes.
    pub request_size: Histogram,
    /// Answer bodies, bytes.
    pub answer_size: Histogram,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Retries that the budget did not allow.
    pub retries_denied: Counter,
    /// Times that a replica was left out.
    pub ejections: Counter,
    /// Requests given up while the replica worked on.
    pub abandoned: Counter,
    /// Slots given back by requests that had an answer or a failure from the replica.
    pub completed: Counter,
    /// Heads of answers that no client may have, by what is wrong with them.
    pub refused_answers: [Counter; AnswerFlaw::ALL.len()],
    /// What the copies of mirrored requests did; this deployment is their target.
    pub mirror: MirrorShard,
}

/// What is wrong with the head of a replica's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFlaw {
    /// More bytes than `max-answer-head-bytes`, or too many headers.
    TooLarge,
    /// It is no HTTP, or can be read in more than one way.
    Malformed,
    /// It has a transfer coding that the router cannot take off.
    TransferCoding,
    /// It changes to a protocol that nobody asked for.
    Upgrade,
}

impl AnswerFlaw {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::TooLarge, Self::Malformed, Self::TransferCoding, Self::Upgrade];

    /// The word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::TransferCoding => "transfer_coding",
            Self::Upgrade => "upgrade",
        }
    }
}

impl DeploymentShard {
    /// Counts an answer that is refused.
    pub fn refuse_answer(&self, flaw: AnswerFlaw) {
        if let Some(counter) = self.refused_answers.get(flaw as usize) {
            counter.bump();
        }
    }
}

/// What one worker counts for the copies sent to one mirror target.
#[derive(Debug)]
pub struct MirrorShard {
    /// Copies that got an answer, by status.
    pub answered: StatusCounts,
    /// Copies that got none.
    pub failed: Counter,
    /// Copies not sent: no free slot, over a limit, or the primary's body was too long or broke off.
    pub skipped: Counter,
    /// Sending to last byte of the answer, µs.
    pub duration: Histogram,
    /// Copies that were answered with the same class of status as the primary.
    pub agreed: Counter,
    /// Copies that were answered with another class of status than the primary.
    pub differed: Counter,
}

impl Default for DeploymentShard {
    fn default() -> Self {
        Self {
            outcomes: std::array::from_fn(|_| Counter::default()),
            served: StatusCounts::default(),
            total: Histogram::of_times(),
            queue: Histogram::of_times(),
            upstream: Histogram::of_times(),
            overhead: Histogram::of_times(),
            request_size: Histogram::of_sizes(),
            answer_size: Histogram::of_sizes(),
            retries: Counter::default(),
            retries_denied: Counter::default(),
            ejections: Counter::default(),
            abandoned: Counter::default(),
            completed: Counter::default(),
            refused_answers: Default::default(),
            mirror: MirrorShard::default(),
        }
    }
}

impl Default for MirrorShard {
    fn default() -> Self {
        Self {
            answered: StatusCounts::default(),
            failed: Counter::default(),
            skipped: Counter::default(),
            duration: Histogram::of_times(),
            agreed: Counter::default(),
            differed: Counter::default(),
        }
    }
}

impl DeploymentState {
    /// For `workers` workers.
    pub fn new(workers: usize, seed: u64) -> Self {
        Self { gate: Gate::new(seed), pace: Mutex::default(), shards: shards(workers) }
    }

    /// The counters of one worker, to count something there.
    pub fn shard(&self, worker: usize) -> &DeploymentShard {
        self.shards[worker % self.shards.len()].get_or_init(Box::default)
    }

    /// The counters of the workers that have counted something.
    pub fn shards(&self) -> impl Iterator<Item = &DeploymentShard> {
        self.shards.iter().filter_map(|shard| shard.get().map(|shard| &**shard))
    }

    /// A total over all workers.
    pub fn total(&self, counter: impl Fn(&DeploymentShard) -> u64) -> u64 {
        self.shards().map(counter).sum()
    }
}

/// Counts exchanges that ended before a deployment was chosen: for one endpoint, or for the router as a whole.
#[derive(Debug)]
pub struct RefusalState {
    shards: Box<[RefusalShard]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct RefusalShard {
    outcomes: OutcomeCounts,
}

#[derive(Debug)]
struct OutcomeCounts([Counter; Outcome::COUNT]);

impl Default for OutcomeCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl RefusalState {
    /// For `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self { shards: shards(workers) }
    }

    /// Counts one.
    pub fn bump(&self, worker: usize, outcome: Outcome) {
        self.shards[worker % self.shards.len()].outcomes.0[outcome.index()].bump();
    }

    /// How many ended so.
    pub fn read(&self, outcome: Outcome) -> u64 {
        self.shards.iter().map(|shard| shard.outcomes.0[outcome.index()].read()).sum()
    }
}

fn shards<T: Default>(workers: usize) -> Box<[T]> {
    (0..workers.max(1)).map(|_| T::default()).collect()
}
