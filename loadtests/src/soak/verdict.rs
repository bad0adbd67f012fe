//! What came of a soak: the table, the file, and whether everything agrees, is flat, and went away.

use std::collections::BTreeSet;
use std::path::Path;

use super::churn::Changes;
use super::steady::{Look, Thirds, thirds};
use super::{Arguments, End};
use crate::report::Verdict;
use crate::router::Router;

/// The whole run.
pub struct Summary<'a> {
    /// How it was asked for.
    pub arguments: &'a Arguments,
    /// Clients that could not go on.
    pub lives: Vec<String>,
    /// One a second.
    pub looks: Vec<Look>,
    /// What was changed meanwhile.
    pub changes: Changes,
    /// The state after it.
    pub end: End,
    /// The router, which still runs.
    pub router: &'a Router,
}

/// One outcome, by all three accounts.
#[derive(serde::Serialize)]
struct Row {
    outcome: String,
    clients: u64,
    lines: u64,
    counted: u64,
}

impl Summary<'_> {
    /// Prints the tables, writes them as JSON, and judges.
    pub fn judge(&self, dir: &Path) -> anyhow::Result<Verdict> {
        let (rows, figures) = (self.rows(), thirds(&self.looks));
        println!("outcome                clients  access log     metrics");
        for Row { outcome, clients, lines, counted } in &rows {
            println!("{outcome:20} {clients:9}  {lines:10}  {counted:10}");
        }
        let Changes { rollouts, deaths, keys, certificates, endpoints, rotations } = self.changes;
        println!(
            "changes: {rollouts} replicas replaced, {deaths} killed, {keys} keys, {certificates} certificates, \
             {endpoints} endpoints, {rotations} files of the log"
        );
        if let Some([memory, files]) = figures {
            print_thirds("memory, MiB", &memory);
            print_thirds("open files", &files);
        }
        let mut failures = self.failures(&rows);
        failures.extend(self.growth(figures));
        for failure in &failures {
            println!("over the bar: {failure}");
        }
        let file = dir.join("soak.json");
        let [memory, files] = figures.map_or([None, None], |both| both.map(Some));
        let results = serde_json::json!({
            "seconds": self.arguments.length().as_secs(), "clients": self.arguments.clients, "outcomes": rows,
            "changes": self.changes, "memory_mib": memory, "open_files": files, "looks": self.looks,
            "failures": failures,
        });
        std::fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
        println!("results: {}", file.display());
        Ok(if failures.is_empty() { Verdict::Passed } else { Verdict::Failed })
    }

    fn rows(&self) -> Vec<Row> {
        let counted = self.end.metrics.by_label("scorefront_requests_total", "outcome");
        let tallies = &self.end.books.tallies;
        let outcomes: BTreeSet<_> = counted.keys().chain(tallies.keys()).cloned().collect();
        let rows = outcomes.into_iter().map(|outcome| {
            let tally = tallies.get(&outcome).copied().unwrap_or_default();
            let counted = counted.get(&outcome).copied().unwrap_or_default();
            Row { outcome, clients: tally.clients, lines: tally.lines, counted }
        });
        rows.collect()
    }

    fn failures(&self, rows: &[Row]) -> Vec<String> {
        let books = &self.end.books;
        let mut failures = self.router.faults();
        failures.extend(self.lives.iter().map(|life| format!("a client could not go on: {life}")));
        failures.extend(self.end.not_zero.clone());
        for Row { outcome, clients, lines, counted } in rows {
            if clients != lines || lines != counted {
                failures.push(format!("{outcome}: clients {clients}, access log {lines}, metrics {counted}"));
            }
            if outcome == "internal" {
                failures.push(format!("{lines} faults of the router"));
            }
        }
        if books.disagreements + books.unexpected > 0 {
            let (disagreements, unexpected) = (books.disagreements, books.unexpected);
            failures.push(format!("{disagreements} disagreements, {unexpected} unexpected answers"));
            failures.extend(books.details.clone());
        }
        let metric = |name: &str| self.end.metrics.total(name) as u64;
        let (written, dropped) =
            (metric("scorefront_access_log_written_lines_total"), metric("scorefront_access_log_dropped_lines_total"));
        if written != books.lines() || dropped != 0 {
            failures.push(format!("{written} lines were written, {dropped} dropped, {} read", books.lines()));
        }
        // The last one may not have been seen yet.
        let renewed = metric("scorefront_tls_certificate_renewals_total");
        if renewed + 1 < u64::from(self.changes.certificates) {
            failures.push(format!("{renewed} of {} certificates were taken up", self.changes.certificates));
        }
        failures
    }

    fn growth(&self, figures: Option<[Thirds; 2]>) -> Vec<String> {
        if self.arguments.unjudged {
            return Vec::new();
        }
        let Some([memory, files]) = figures else { return vec!["memory was not looked at".to_owned()] };
        let growing = [("memory", memory), ("open files", files)].into_iter().filter(|(_, thirds)| !thirds.flat);
        let told = growing.map(|(name, Thirds { first, last, .. })| {
            format!("{name}: {:.1} in the first third, {:.1} in the last", first.median, last.median)
        });
        told.collect()
    }
}

fn print_thirds(name: &str, Thirds { first, last, .. }: &Thirds) {
    println!(
        "{name:12} first third {:.1} ({:.1} to {:.1}), last third {:.1} ({:.1} to {:.1})",
        first.median, first.least, first.most, last.median, last.least, last.most
    );
}
