//! Runs this program under callgrind, and reads what that has counted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::WARM_UP;
use crate::judge::Cost;
use crate::shape::{CROWD, Shape};

/// Enough that what happens now and then, such as waking the thread that writes the log, does not show.
const EXCHANGES: u32 = 1000;

/// Rounds of a crowd.
const ROUNDS: usize = 30;

/// The caches that `lines` has. The last of them is small, a quarter of what a core has for itself today: as much as the kernel
/// may leave of it, which has some hundred sockets to look after meanwhile.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=262144,16,64"];

/// Calls that are worth a line of their own: of the kernel, and of the clock.
const CALLS: [&str; 8] = ["clock_gettime", "epoll_wait", "recv", "send", "writev", "connect", "close", "syscall"];

/// What was counted.
pub(crate) struct Counted {
    pub(crate) cost: Cost,
    /// How often some functions were called in an exchange.
    pub(crate) calls: Vec<(&'static str, f64)>,
    /// callgrind's own file.
    pub(crate) file: PathBuf,
}

/// Counts one shape.
pub(crate) fn count(shape: Shape) -> Counted {
    let file = out_file(shape.name());
    let out = collect(&file, &[], &["run", shape.name(), &EXCHANGES.to_string()]);
    let said = pairs(&out);
    let per_exchange = |n: f64| n / f64::from(EXCHANGES);
    let text = std::fs::read_to_string(&file).expect("callgrind has written its file");
    let instructions = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let instructions: f64 = instructions.expect("callgrind's file has a total");
    assert!(instructions > 0.0, "callgrind does not know counted_turn");
    let cost = Cost {
        instructions: per_exchange(instructions).round(),
        allocations: hundredths(per_exchange(said["allocations"])),
        bytes: per_exchange(said["bytes"]).round(),
    };
    // Calls are counted from the start on.
    let all = f64::from(EXCHANGES + WARM_UP);
    let calls = calls(&text).into_iter().map(|(name, n)| (name, (n / all * 10.0).round() / 10.0)).collect();
    Counted { cost, calls, file }
}

/// Where callgrind writes to, beside this program.
fn out_file(name: &str) -> PathBuf {
    std::env::current_exe().expect("this program has a path").with_file_name(format!("callgrind.{name}.out"))
}

/// Runs this program with `arguments` under callgrind, which writes `file`. Returns what the program said.
fn collect(file: &Path, options: &[&str], arguments: &[&str]) -> String {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--toggle-collect=*counted_turn*"])
        .args(options)
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(arguments)
        .output()
        .expect("valgrind is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out.into_owned()
}

fn hundredths(n: f64) -> f64 {
    (n * 100.0).round() / 100.0
}

/// The program's line: names, each before its number.
fn pairs(line: &str) -> HashMap<&str, f64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let mut pairs = HashMap::new();
    for pair in words.chunks_exact(2) {
        if let Ok(number) = pair[1].parse() {
            pairs.insert(pair[0], number);
        }
    }
    pairs
}

/// How often each of `CALLS` was called, by callgrind's file: `cfn=(number) name`, where the name is left out after the
/// first time, and then `calls=count …`.
fn calls(text: &str) -> Vec<(&'static str, f64)> {
    let mut names = HashMap::new();
    let (mut called, mut counts) = ("", HashMap::new());
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            called = names.get(number).copied().unwrap_or_default();
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let count: f64 = calls.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0.0);
            *counts.entry(called.split('@').next().unwrap_or_default()).or_insert(0.0) += count;
        }
    }
    CALLS.into_iter().filter_map(|name| Some((name, *counts.get(name)?))).collect()
}

/// A line without what its paths and objects all have in common.
fn shorten(line: &str) -> String {
    let line = line.split_once(" [/").map_or(line, |(line, _)| line);
    match line.rsplit_once("/src/index.crates.io-") {
        Some((before, path)) => {
            let cost = before.rsplit_once(' ').map_or("", |(cost, _)| cost);
            format!("{cost} {}", path.split_once('/').map_or(path, |(_, path)| path))
        }
        None => line.to_owned(),
    }
}

/// Prints where the instructions of a shape go.
pub(crate) fn profile(shape: Shape) -> ExitCode {
    let counted = count(shape);
    println!("{} {:?}\n{:?}\n{}", shape.name(), counted.cost, counted.calls, counted.file.display());
    for order in ["--inclusive=no", "--inclusive=yes"] {
        let annotated =
            Command::new("callgrind_annotate").args([order, "--auto=no", "--threshold=99"]).arg(&counted.file).output();
        let text = String::from_utf8(annotated.expect("callgrind_annotate comes with valgrind").stdout);
        println!("\n{order}");
        for line in text.unwrap_or_default().lines().skip_while(|line| !line.contains("PROGRAM TOTALS")).take(70) {
            println!("{}", shorten(line));
        }
    }
    ExitCode::SUCCESS
}

/// Prints how many lines of memory an exchange needs that are in no cache, and which functions read and write them first.
pub(crate) fn lines() -> ExitCode {
    let file = out_file("lines");
    let options = [&["--cache-sim=yes"][..], &CACHES].concat();
    collect(&file, &options, &["crowd", &ROUNDS.to_string()]);
    let text = std::fs::read_to_string(&file).expect("callgrind has written its file");
    let line =
        |start| text.lines().find_map(|line| line.strip_prefix(start)).expect("callgrind writes what it counted");
    let (names, totals) = (line("events: "), line("totals: "));
    let total = |event: &str| {
        let at = names.split(' ').position(|name| name == event).expect("the caches are counted");
        let total: f64 = totals.split(' ').nth(at).and_then(|total| total.parse().ok()).expect("a number for each");
        (total / (ROUNDS * CROWD) as f64).round()
    };
    let [read, written, code] = ["DLmr", "DLmw", "ILmr"].map(total);
    assert!(read > 0.0, "callgrind does not know counted_turn");
    println!("lines of memory in an exchange: {read} read, {written} written, {code} of code\n{}", file.display());
    for (sort, show) in [("--sort=DLmr:85", "--show=DLmr,DLmw"), ("--sort=DLmw:85", "--show=DLmw,DLmr")] {
        let annotated = Command::new("callgrind_annotate").args(["--auto=no", sort, show]).arg(&file).output();
        let text = String::from_utf8(annotated.expect("callgrind_annotate comes with valgrind").stdout);
        println!();
        for line in text.unwrap_or_default().lines().skip_while(|line| !line.contains("PROGRAM TOTALS")).take(50) {
            println!("{}", shorten(line));
        }
    }
    ExitCode::SUCCESS
}
