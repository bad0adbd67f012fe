//! The alarm of an exchange that is over, kept for the next one on its connection.

use std::pin::Pin;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// It stays set: to take it out of the runtime's wheel and to put it back costs more than being woken by it once in a request
/// time-out.
#[derive(Debug, Default)]
pub(crate) struct KeptAlarm(Mutex<Option<Pin<Box<Sleep>>>>);

impl KeptAlarm {
    /// One that rings at `until`, or before where the last one does.
    pub(crate) fn take(&self, until: Instant) -> Pin<Box<Sleep>> {
        let kept = self.0.lock().take();
        match kept {
            Some(alarm) if !alarm.is_elapsed() && alarm.deadline() <= until => alarm,
            Some(mut alarm) => {
                alarm.as_mut().reset(until);
                alarm
            }
            None => Box::pin(sleep_until(until)),
        }
    }

    /// Keeps it for the next exchange.
    pub(crate) fn keep(&self, alarm: Pin<Box<Sleep>>) {
        *self.0.lock() = Some(alarm);
    }
}
