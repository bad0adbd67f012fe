//! What a scenario asks of the machine: a core for the router and another one for everything else, open files, and that
//! background work stays in the background. All by programs of util-linux, which the system calls would need `unsafe` for.

use std::fs::{self, File};
use std::process::Command;
use std::thread;

use anyhow::Context as _;

/// The cores of a run: the router has one for itself where there are two.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Cores {
    /// Of the router.
    pub router: Option<usize>,
    /// Of clients and replicas.
    pub others: Option<usize>,
}

impl Cores {
    /// Moves this process to its core. To be called before there is a second thread.
    pub fn divide() -> anyhow::Result<Self> {
        // The first two are enough: what is measured is one worker.
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            println!("one core: the router shares it with clients and replicas, so times say little");
            return Ok(Self { router: None, others: None });
        }
        run("taskset", &["--cpu-list", "--pid", "1", &std::process::id().to_string()])?;
        Ok(Self { router: Some(0), others: Some(1) })
    }
}

/// Sees to it that this process and its children may have this many files open, and that none of its threads waits for the
/// kernel's table of them to grow, some 10 ms each time that it does. To be called before there is a second thread.
pub fn allow_open_files(needed: usize) -> anyhow::Result<()> {
    // Some are open already.
    raise_limit(needed + 64)?;
    let files: Result<Vec<_>, _> = (0..needed).map(|_| File::open("/dev/null")).collect();
    files.context("open as many files as are needed")?;
    Ok(())
}

fn raise_limit(needed: usize) -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of open files")?;
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(usize::MAX));
    let (soft, hard) = numbers.next().zip(numbers.next()).context("no limit of open files")?;
    if soft >= needed {
        return Ok(());
    }
    let limit = format!("--nofile={needed}:{}", hard.max(needed));
    run("prlimit", &["--pid", &std::process::id().to_string(), &limit])
        .with_context(|| format!("{needed} open files are needed, {soft} are allowed (ulimit -n), {hard} at most"))
}

/// Puts this process, and what it starts, before everything else on the machine, where it may: what is timed are
/// milliseconds, and any daemon takes some at a time. To be called before there is a second thread.
pub fn step_forward() {
    if let Err(error) = run("chrt", &["--rr", "--pid", "1", &std::process::id().to_string()]) {
        println!("times are also those of what else the machine does: {error:#}");
    }
}

/// Lets the calling thread have the processor only when nobody else wants it.
pub fn step_back() -> anyhow::Result<()> {
    let thread = fs::read_link("/proc/thread-self")?;
    let id = thread.file_name().and_then(|name| name.to_str()).context("a thread without an id")?.to_owned();
    run("chrt", &["--idle", "--pid", "0", &id])
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("start {program} (Debian package util-linux)"))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), printed.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_steps_back_and_few_files_are_always_allowed() {
        thread::spawn(|| step_back().unwrap()).join().unwrap();
        allow_open_files(16).unwrap();
    }
}
