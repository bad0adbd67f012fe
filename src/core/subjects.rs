//! What the subjects of tokens have used of the limits that each of them has at one endpoint.
//!
//! Owner: the live state of an endpoint ([`super::limiter::Meters`]). Keys are few and known, so each has a meter;
//! subjects are whoever the issuer gives tokens to, so what is known of them must not grow with their number.
//!
//! Of a rate, a bucket is one number (see [`super::rate`]), and it is kept in the places of [`Debts`]. A subject whose
//! bucket is full owes nothing, and is forgotten without loss. Where all places of a set are owed for, a newcomer takes
//! over the least of these debts as if it were its own, so whoever was forgotten comes back to no less than it owed.
//! Requests under way are counted one by one, and only of subjects that have any.
//!
//! Holds: no subject gets more than its limit, however many others come. Nobody takes anything from a subject that owes
//! more than the least of its set; what a crowd costs is paid by those who are new in it. Places are fixed, and who has
//! requests under way is bounded by how many there may be.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::count::Counter;
use super::debts::Debts;
use super::rate::{Limit, Over, Pace};

/// Whom a token is about, as a digest: what it is a digest of cannot be told from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject(pub [u8; 16]);

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(…)")
    }
}

/// See the head of the file. Takes no memory until somebody asks.
#[derive(Debug, Default)]
pub struct Subjects {
    owed: Debts<Subject>,
    under_way: Mutex<HashMap<Subject, u32>>,
    /// Times that a newcomer took over what another one owed.
    pub crowded: Counter,
}

/// One request that passes; under way until it is dropped.
#[derive(Debug)]
pub struct Permit {
    subjects: Arc<Subjects>,
    subject: Subject,
    is_counted: bool,
}

impl Subjects {
    /// Lets a request of the subject pass at `now`, in nanoseconds on whatever clock, always the same. The first call says
    /// how many `places` there are.
    ///
    /// # Errors
    /// What was in the way. Nothing was taken then.
    pub fn admit(self: &Arc<Self>, limit: &Limit, subject: Subject, places: usize, now: u64) -> Result<Permit, Over> {
        let is_counted = limit.concurrent.is_some();
        if let Some(most) = limit.concurrent {
            self.enter(subject, most)?;
        }
        let permit = Permit { subjects: self.clone(), subject, is_counted };
        if let Some(pace) = limit.pace() {
            self.take(pace, subject, places, now).map_err(|wait_ns| Over::Rate { wait_ns })?;
        }
        Ok(permit)
    }

    fn enter(&self, subject: Subject, most: u32) -> Result<(), Over> {
        match self.under_way.lock().entry(subject) {
            Entry::Occupied(count) if *count.get() >= most => return Err(Over::Concurrency),
            entry => *entry.or_default() += 1,
        }
        Ok(())
    }

    fn leave(&self, subject: Subject) {
        if let Entry::Occupied(mut count) = self.under_way.lock().entry(subject) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn take(&self, pace: Pace, subject: Subject, places: usize, now: u64) -> Result<(), u64> {
        let Some(mut place) = self.owed.place(places, subject) else { return Ok(()) };
        place.clear = pace.cap(now)(place.clear);
        if place.clear > now && place.debtor != Some(subject) {
            self.crowded.bump();
        }
        // One who is turned away takes no place.
        place.clear = pace.take(place.clear, now)?;
        place.debtor = Some(subject);
        Ok(())
    }

    /// Subjects who have not all of their rate at `now`.
    pub fn len(&self, now: u64) -> usize {
        self.owed.len(now)
    }

    /// Subjects with requests under way that count, and how many these are.
    pub fn under_way(&self) -> (usize, u32) {
        let counts = self.under_way.lock();
        (counts.len(), counts.values().sum())
    }
}

impl Permit {
    /// For one that was let pass here and turned away elsewhere: it counts for nothing.
    pub fn unused(self, limit: &Limit) {
        let place = self.subjects.owed.place(0, self.subject);
        if let (Some(pace), Some(mut place)) = (limit.pace(), place)
            && place.debtor == Some(self.subject)
        {
            place.clear = pace.put_back(place.clear);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_counted {
            self.subjects.leave(self.subject);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
