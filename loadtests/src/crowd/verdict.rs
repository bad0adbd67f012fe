//! What came of the rounds with the crowd: the table, the file, and whether it was within the bars.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::clients::{End, Kind};
use super::good::Seen;
use super::{Arguments, Deadlines};
use crate::gauges::Memory;
use crate::machine::Cores;
use crate::report::{Rounds, Verdict, Waits};
use crate::router::Router;

/// How much earlier a client may be cut off than its deadline: timers are exact to a millisecond or two.
const EARLY_MAX: Duration = Duration::from_millis(20);

/// How much later: the time to notice, on a busy core.
const LATE_MAX: Duration = Duration::from_secs(1);

/// How much the memory after the last crowd may be above that after the first.
const GROWTH_MAX: f64 = 1.1;

/// One round.
pub struct Round {
    /// Good clients alone.
    pub before: Seen,
    /// Good clients beside the crowd.
    pub during: Seen,
    /// The crowd.
    pub ends: Vec<End>,
    /// Connections when all had come.
    pub at_once: u64,
    /// The kernel's buffers then, of both ends.
    pub sockets_mib: Option<f64>,
    /// The router's memory after it all.
    pub memory: Memory,
    /// What did not go away.
    pub leftovers: Leftovers,
}

/// What is left of a crowd that has gone: all zero, if it is to pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Leftovers {
    /// Open files beyond those before and a few kept connections.
    pub files: usize,
    /// Client connections.
    pub connections: u64,
    /// Slots taken.
    pub in_flight: u64,
    /// Slots taken for nobody.
    pub abandoned: u64,
    /// Requests in line.
    pub queued: u64,
    /// Refused clients that are read over.
    pub lingering: u64,
}

/// The whole run.
pub struct Summary<'a> {
    /// How it was asked for.
    pub arguments: &'a Arguments,
    /// The router's time-outs.
    pub deadlines: Deadlines,
    /// Where things ran.
    pub cores: Cores,
    /// What happened.
    pub rounds: Vec<Round>,
    /// Clients cut off, as the router counts them, by what they were slow with.
    pub slow_cut: BTreeMap<String, u64>,
    /// The router, which still runs.
    pub router: &'a Router,
}

/// How clients of one kind were cut off.
#[derive(serde::Serialize)]
struct Cut {
    kind: Kind,
    clients: usize,
    never: usize,
    too_early: usize,
    too_late: usize,
    told_408: usize,
    seconds: Option<Rounds>,
    allowed_seconds: [f64; 2],
}

impl Summary<'_> {
    /// Prints the table, writes it as JSON, and judges.
    pub fn judge(&self, dir: &Path) -> anyhow::Result<Verdict> {
        let cuts: Vec<_> = Kind::ALL.into_iter().map(|kind| self.cut(kind)).collect();
        print_cuts(&cuts);
        let mut failures = self.judge_cuts(&cuts);
        let before = self.waits(|round| &round.before);
        let during = self.waits(|round| &round.during);
        let ratio =
            Rounds::of(before.iter().zip(&during).map(|(before, during)| during.p99_ms / before.p99_ms).collect());
        println!("good clients   requests  mean ms  p99 ms (medians of rounds)");
        print_waits("alone", &before);
        print_waits("with crowd", &during);
        if let Some(ratio) = ratio {
            println!(
                "p99 with the crowd / alone: {:.2} (rounds: {:.2} to {:.2}), the model takes {} ms",
                ratio.median, ratio.least, ratio.most, self.arguments.model_ms
            );
        }
        failures.extend(self.judge_good(ratio));
        failures.extend(self.judge_router());
        for failure in &failures {
            println!("over the bar: {failure}");
        }
        let rounds: Vec<_> = self.rounds.iter().map(|round| {
            serde_json::json!({
                "connections_at_once": round.at_once, "socket_memory_mib": round.sockets_mib, "memory": round.memory,
                "leftovers": round.leftovers, "good_failed": round.before.failed + round.during.failed,
            })
        }).collect();
        let file = dir.join("crowd.json");
        let results = serde_json::json!({
            "clients": self.arguments.clients, "cores": self.cores, "settings": self.deadlines.settings(), "cuts": cuts,
            "good_alone": before, "model_ms": self.arguments.model_ms, "good_with_crowd": during, "p99_ratio": ratio, "rounds": rounds, "failures": failures,
        });
        std::fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
        println!("results: {}", file.display());
        Ok(if failures.is_empty() { Verdict::Passed } else { Verdict::Failed })
    }

    fn cut(&self, kind: Kind) -> Cut {
        let (earliest, latest) = self.deadlines.cut(kind);
        let ends: Vec<_> = self.rounds.iter().flat_map(|round| &round.ends).filter(|end| end.kind == kind).collect();
        let lasted: Vec<_> = ends.iter().filter_map(|end| end.lasted).collect();
        Cut {
            kind,
            clients: ends.len(),
            never: ends.len() - lasted.len(),
            too_early: lasted.iter().filter(|&&lasted| lasted + EARLY_MAX < earliest).count(),
            too_late: lasted.iter().filter(|&&lasted| lasted > latest + LATE_MAX).count(),
            told_408: ends.iter().filter(|end| end.status == Some(408)).count(),
            seconds: Rounds::of(lasted.iter().map(Duration::as_secs_f64).collect()),
            allowed_seconds: [earliest, latest].map(|time| time.as_secs_f64()),
        }
    }

    fn waits(&self, figure: impl Fn(&Round) -> &Seen) -> Vec<Waits> {
        self.rounds.iter().filter_map(|round| Waits::of(figure(round).latencies_ms.clone())).collect()
    }

    fn judge_cuts(&self, cuts: &[Cut]) -> Vec<String> {
        let mut failures = Vec::new();
        let expected = self.rounds.len() * self.arguments.clients as usize;
        let seen: usize = cuts.iter().map(|cut| cut.clients).sum();
        if seen != expected {
            failures.push(format!("{expected} slow clients came, of {seen} is known how they ended"));
        }
        for Cut { kind, never, too_early, too_late, allowed_seconds: [earliest, latest], .. } in cuts {
            let mut say = |count: usize, what: &str| {
                if count > 0 {
                    failures.push(format!("{kind:?}: {count} clients were {what} ({earliest} to {latest} s)"));
                }
            };
            say(*never, "never cut off, or had no connection");
            say(*too_early, "cut off before their deadline");
            say(if self.arguments.unjudged { 0 } else { *too_late }, "cut off late");
        }
        failures
    }

    fn judge_good(&self, ratio: Option<Rounds>) -> Option<String> {
        let seen = || self.rounds.iter().flat_map(|round| [&round.before, &round.during]);
        let failed: u64 = seen().map(|seen| seen.failed).sum();
        if failed > 0 {
            let why = seen().find_map(|seen| seen.failed_why.clone()).unwrap_or_default();
            return Some(format!("{failed} good requests failed ({why})"));
        }
        let Some(ratio) = ratio else { return Some("no good request was timed".to_owned()) };
        let over = !self.arguments.unjudged && ratio.median > self.arguments.bar;
        over.then(|| format!("the good clients' p99 is {:.2} times as long ({})", ratio.median, self.arguments.bar))
    }

    fn judge_router(&self) -> Vec<String> {
        let mut failures = self.router.faults();
        for (round, number) in self.rounds.iter().zip(1..) {
            if round.leftovers != Leftovers::default() {
                failures.push(format!("round {number} left something behind: {:?}", round.leftovers));
            }
            if round.at_once < u64::from(self.arguments.clients) && !self.arguments.unjudged {
                let clients = self.arguments.clients;
                failures.push(format!("round {number}: {} connections at once, not {clients}", round.at_once));
            }
        }
        for (kind, what) in [(Kind::Body, "body"), (Kind::Reader, "answer")] {
            let cut = self.rounds.iter().flat_map(|round| &round.ends).filter(|end| end.kind == kind).count() as u64;
            let counted = self.slow_cut.get(what).copied().unwrap_or_default();
            if cut != counted {
                failures.push(format!("{cut} clients were slow with a {what}, the router counted {counted}"));
            }
        }
        let (Some(first), Some(last)) = (self.rounds.first(), self.rounds.last()) else { return failures };
        if self.arguments.unjudged {
            return failures;
        }
        if last.memory.peak_mib > self.arguments.memory.into() {
            failures.push(format!("{:.0} MiB resident ({})", last.memory.peak_mib, self.arguments.memory));
        }
        if last.memory.now_mib > first.memory.now_mib * GROWTH_MAX {
            failures.push(format!(
                "{:.0} MiB after the last crowd, {:.0} after the first",
                last.memory.now_mib, first.memory.now_mib
            ));
        }
        failures
    }
}

fn print_cuts(cuts: &[Cut]) {
    println!("slow at  clients  cut off after s: least  median    most  allowed         told 408");
    for cut in cuts {
        let [earliest, latest] = cut.allowed_seconds;
        let kind = format!("{:?}", cut.kind).to_ascii_lowercase();
        let Some(seconds) = cut.seconds else { continue };
        println!(
            "{kind:8} {:7}  {:22.2}  {:6.2}  {:6.2}  {earliest:5.1} to {latest:5.1}  {:8}",
            cut.clients, seconds.least, seconds.median, seconds.most, cut.told_408
        );
    }
}

fn print_waits(name: &str, waits: &[Waits]) {
    let count: usize = waits.iter().map(|round| round.count).sum();
    let median = |figure: fn(&Waits) -> f64| Rounds::of(waits.iter().map(figure).collect());
    if let Some((mean, p99)) = median(|waits| waits.mean_ms).zip(median(|waits| waits.p99_ms)) {
        println!("{name:14} {count:8}  {:7.2}  {:6.2}", mean.median, p99.median);
    }
}
