//! The account of a soak: what clients saw, what the access log says, and that both say the same of each request.
//!
//! Owner: everybody who sends, and the reader of the log. Each request has a number, which travels in its
//! `x-ms-client-request-id`, so the two sides are compared one by one and forgotten.
//! Holds: memory only for what one side has said and the other has not yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What requests are called in their `x-ms-client-request-id`.
const PREFIX: &str = "soak-";

/// Details that are kept of what went wrong.
const DETAILS_MAX: usize = 20;

/// What a client saw of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// A whole answer; with the code of the error body, where it was one of the router's own.
    Whole(u16, Option<String>),
    /// A status, and then the end of the connection or stream before that of the answer.
    Part(u16),
    /// Nothing: it left.
    Left,
    /// Nothing: the connection or stream ended.
    Nothing(String),
}

/// The fields of a line of the access log that matter here.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Line {
    #[serde(rename = "XMSClientRequestId")]
    id: Option<String>,
    response_code: u16,
    #[serde(default)]
    response_code_reason: String,
    outcome: String,
    #[serde(default)]
    error_detail: String,
}

/// Of one outcome: requests of which clients say so too, and lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Clients whose account agrees.
    pub clients: u64,
    /// Lines of the access log.
    pub lines: u64,
}

/// See the head of the file.
#[derive(Default)]
pub struct Account {
    next: AtomicU64,
    books: Mutex<Books>,
}

/// What there is to say at the end, or in between.
#[derive(Clone, Debug, Default)]
pub struct Books {
    said: HashMap<u64, Saw>,
    logged: HashMap<u64, Line>,
    /// Heads that were too slow have no number: the router never saw one.
    nameless: u64,
    nameless_logged: u64,
    /// By outcome.
    pub tallies: BTreeMap<String, Tally>,
    /// Requests of which client and log tell different things.
    pub disagreements: u64,
    /// Requests that were to be answered in another way.
    pub unexpected: u64,
    /// The first few of both.
    pub details: Vec<String>,
}

impl Account {
    /// A number for the next request.
    pub fn open(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A client's account of a request; `expected` is the only status that is right, where there is one.
    pub fn say(&self, number: u64, saw: Saw, expected: Option<u16>) {
        let mut books = self.lock();
        if expected.is_some_and(|status| !matches!(&saw, Saw::Whole(seen, _) if *seen == status)) {
            books.unexpected += 1;
            books.detail(format!("request {number} was to be answered with {expected:?}, but: {saw:?}"));
        }
        match books.logged.remove(&number) {
            Some(line) => books.compare(number, &saw, &line),
            None => _ = books.said.insert(number, saw),
        }
    }

    /// A client was told that its head was too slow.
    pub fn say_nameless(&self) {
        self.lock().nameless += 1;
    }

    /// A line of the access log.
    pub fn log(&self, text: &str) {
        let mut books = self.lock();
        match serde_json::from_str::<Line>(text) {
            Ok(line) => books.log(line),
            Err(error) => books.disagree(format!("a line of the access log is no JSON ({error}): {text}")),
        }
    }

    /// Everything so far.
    pub fn books(&self) -> Books {
        self.lock().clone()
    }

    /// The first things that went wrong.
    pub fn details(&self) -> Vec<String> {
        self.lock().details.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // Nothing is done under the lock that could leave it half done.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of `x-ms-client-request-id` for a request.
pub fn id(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number of a request by its `x-ms-client-request-id`.
pub fn number(id: &str) -> Option<u64> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

impl Books {
    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.tallies.values().map(|tally| tally.lines).sum()
    }

    /// Disagrees about everything that only one side has spoken of. To be called when nothing more will come.
    pub fn close(&mut self) {
        for (number, saw) in std::mem::take(&mut self.said) {
            self.disagree(format!("request {number} has no line in the access log: {saw:?}"));
        }
        for (number, line) in std::mem::take(&mut self.logged) {
            self.disagree(format!("no client knows of request {number}, or it has two lines: {line:?}"));
        }
        if self.nameless != self.nameless_logged {
            let (told, logged) = (self.nameless, self.nameless_logged);
            self.disagree(format!("{told} clients were told that their head was too slow, the log has {logged}"));
        }
        self.tallies.entry("request_too_slow".to_owned()).or_default().clients += self.nameless;
    }

    /// Requests of which only one side has spoken.
    pub fn open(&self) -> usize {
        self.said.len() + self.logged.len()
    }

    fn log(&mut self, line: Line) {
        self.tallies.entry(line.outcome.clone()).or_default().lines += 1;
        let Some(number) = line.id.as_deref().and_then(number) else {
            if line.id.is_none() && line.outcome == "request_too_slow" {
                self.nameless_logged += 1;
            } else {
                self.disagree(format!("a line of no request of ours: {line:?}"));
            }
            return;
        };
        match self.said.remove(&number) {
            Some(saw) => self.compare(number, &saw, &line),
            None => {
                if let Some(earlier) = self.logged.insert(number, line) {
                    self.disagree(format!("request {number} has two lines: {earlier:?}"));
                }
            }
        }
    }

    fn compare(&mut self, number: u64, saw: &Saw, line: &Line) {
        let outcome = line.outcome.as_str();
        let agrees = match saw {
            Saw::Whole(status, Some(code)) => line.response_code == *status && line.response_code_reason == *code,
            Saw::Whole(status, None) => {
                line.response_code == *status && matches!(outcome, "served" | "model_error" | "preflight")
            }
            Saw::Part(status) => line.response_code == *status && outcome == "stream_broken",
            // It may have left a moment too late.
            Saw::Left => true,
            // An answer that breaks off is cut with a reset, which may overtake its first bytes.
            Saw::Nothing(_) => outcome == "stream_broken",
        };
        if agrees {
            self.tallies.entry(line.outcome.clone()).or_default().clients += 1;
        } else {
            let (status, detail) = (line.response_code, &line.error_detail);
            self.disagree(format!(
                "request {number}: the client saw {saw:?}, the log has {outcome} {status}, {detail}"
            ));
        }
    }

    fn disagree(&mut self, detail: String) {
        self.disagreements += 1;
        self.detail(detail);
    }

    fn detail(&mut self, detail: String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, status: u16, outcome: &str) -> String {
        format!(
            r#"{{"XMSClientRequestId":"soak-{number}","ResponseCode":{status},"ResponseCodeReason":"OK","Outcome":"{outcome}","TotalDurationMs":1.5}}"#
        )
    }

    fn closed(account: &Account) -> Books {
        let mut books = account.books();
        books.close();
        books
    }

    #[test]
    fn both_sides_agree_whoever_speaks_first() {
        let account = Account::default();
        let (first, second) = (account.open(), account.open());
        account.log(&line(first, 200, "served"));
        account.say(first, Saw::Whole(200, None), Some(200));
        account.say(second, Saw::Left, None);
        account.log(&line(second, 499, "client_gone"));
        let books = closed(&account);
        assert_eq!((books.disagreements, books.unexpected), (0, 0), "{:?}", books.details);
        assert_eq!(books.tallies["served"], Tally { clients: 1, lines: 1 });
        assert_eq!(books.tallies["client_gone"], Tally { clients: 1, lines: 1 });
    }

    #[test]
    fn a_missing_line_a_second_line_and_another_status_are_found() {
        let account = Account::default();
        account.say(1, Saw::Whole(200, None), None);
        account.log(&line(2, 200, "served"));
        account.say(2, Saw::Whole(200, None), None);
        account.log(&line(2, 200, "served"));
        account.log(&line(3, 503, "queue_full"));
        account.say(3, Saw::Whole(200, None), None);
        assert_eq!(closed(&account).disagreements, 3);
    }

    #[test]
    fn a_slow_head_is_counted_without_a_number() {
        let account = Account::default();
        account.say_nameless();
        assert_eq!(closed(&account).disagreements, 1);
        account.log(r#"{"ResponseCode":408,"ResponseCodeReason":"RequestTooSlow","Outcome":"request_too_slow"}"#);
        let books = closed(&account);
        assert_eq!(books.disagreements, 0);
        assert_eq!(books.tallies["request_too_slow"], Tally { clients: 1, lines: 1 });
    }

    #[test]
    fn an_answer_that_was_to_be_another_one_is_told() {
        let account = Account::default();
        account.say(1, Saw::Whole(401, Some("Unauthorized".to_owned())), Some(200));
        assert_eq!(account.books().unexpected, 1);
    }
}
