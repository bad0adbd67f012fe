//! Looks at a directory again and again, and tells of what it finds.
//!
//! Owner: a thread of its own, because a file system that hangs must not hang the admin port with it. It ends with the
//!        first look after nobody listens any more.
//! Holds: looks of up to half a second take no more than a fifth of its time, however many files there are; after one that
//!        hung, the next comes within seconds; a look that found nothing is told
//!        once a second, so that whoever listens can sleep meanwhile.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::folder::{Finding, Folder};

/// Time between two looks. A change that replaces a file is seen by the next look, one that is written into a file by
/// the one after.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// The time between two looks is at least so many times that of a look.
const REST: u32 = 4;
/// But no more than this: a look may have hung for an hour.
const REST_MAX: Duration = Duration::from_secs(2);
/// How often it is told that nothing changed.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What a look came to.
pub(super) type Look = Result<Vec<Finding>, String>;

/// Starts to look. No more looks come if the thread crashes.
pub(super) fn watch(dir: PathBuf) -> io::Result<Receiver<Look>> {
    let (sender, looks) = channel(1);
    let mut folder = Folder::new(dir);
    thread::Builder::new().name("manifests".to_owned()).spawn(move || keep_looking(|| folder.look(), &sender))?;
    Ok(looks)
}

fn keep_looking(mut look: impl FnMut() -> Look, looks: &Sender<Look>) {
    let mut told: Option<Instant> = None;
    while !looks.is_closed() {
        let began = Instant::now();
        let found = look();
        let took = began.elapsed();
        let is_news = !found.as_ref().is_ok_and(Vec::is_empty);
        if is_news || told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            // Whether anybody listens is asked next.
            let _ = looks.blocking_send(found);
            told = Some(Instant::now());
        }
        thread::sleep(rest_after(took));
    }
}

/// How long to rest after a look that took so long.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(REST).clamp(LOOK_EVERY, REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(text: &str) -> Finding {
        Finding::Content { file: "a.yaml".into(), text: text.to_owned() }
    }

    #[test]
    fn the_first_look_and_news_are_told_and_it_ends_when_nobody_listens() {
        let (sender, mut looks) = channel(1);
        let mut number = 0;
        let look = move || {
            number += 1;
            match number {
                3 => Ok(vec![finding("three")]),
                5 => Err("gone".to_owned()),
                _ => Ok(vec![]),
            }
        };
        let thread = thread::spawn(move || keep_looking(look, &sender));
        assert_eq!(looks.blocking_recv(), Some(Ok(vec![])), "at first, whatever it finds");
        // Looks that found nothing may be among those, where a look took a second.
        let mut news = std::iter::from_fn(|| looks.blocking_recv()).filter(|look| *look != Ok(vec![]));
        assert_eq!(news.next(), Some(Ok(vec![finding("three")])));
        assert_eq!(news.next(), Some(Err("gone".to_owned())));
        drop(looks);
        thread.join().unwrap();
    }

    #[test]
    fn long_looks_are_seldom_and_one_that_hung_is_not_paid_for_with_hours() {
        let rests = [0, 10, 100, 3_600_000].map(|took| rest_after(Duration::from_millis(took)).as_millis());
        assert_eq!(rests, [40, 40, 400, 2000]);
    }

    #[test]
    fn a_look_that_crashes_is_the_last() {
        let (sender, mut looks) = channel(1);
        let thread = thread::spawn(move || keep_looking(|| panic!("on purpose"), &sender));
        assert_eq!(looks.blocking_recv(), None);
        thread.join().unwrap_err();
    }
}
