//! What the kernel says about this process. Where `/proc` is missing, the series are.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;

use super::page::{Page, whole};
use super::table;

/// Clock ticks of `/proc/self/stat` in a second: fixed by the kernel's interface to programs on all platforms that
/// are supported.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn write(page: &mut Page<'_>) -> fmt::Result {
    let stat = read("/proc/self/stat");
    let status = read("/proc/self/status");
    page.metric(table::CPU, |series| match cpu_seconds(&stat) {
        Some(seconds) => series.quantity(&[], seconds),
        None => Ok(()),
    })?;
    let memory = |field| status_field(&status, field).map(|kib| kib * 1024);
    gauge(page, table::RESIDENT, memory("VmRSS:"))?;
    gauge(page, table::VIRTUAL, memory("VmSize:"))?;
    gauge(page, table::OPEN_FDS, open_fds())?;
    gauge(page, table::MAX_FDS, max_fds(&read("/proc/self/limits")))?;
    page.metric(table::START_TIME, |series| match start_time(&stat, &read("/proc/stat")) {
        Some(seconds) => series.level(&[], seconds),
        None => Ok(()),
    })?;
    gauge(page, table::THREADS, status_field(&status, "Threads:"))
}

/// Resident memory, if the kernel says.
pub(in crate::ops) fn resident_bytes() -> Option<u64> {
    status_field(&read("/proc/self/status"), "VmRSS:").map(|kib| kib * 1024)
}

fn gauge(page: &mut Page<'_>, metric: &'static table::Metric, value: Option<u64>) -> fmt::Result {
    page.metric(metric, |series| value.map_or(Ok(()), |value| series.level(&[], whole(value))))
}

/// In one piece as a rule, where the standard library takes seven: these files do not say how long they are, so that it begins
/// with little.
fn read(path: &str) -> String {
    let mut text = String::with_capacity(4 << 10);
    let read = File::open(path).and_then(|file| file.take(READ_MAX).read_to_string(&mut text));
    read.map(|_| text).unwrap_or_default()
}

/// Longer than any of them.
const READ_MAX: u64 = 1 << 20;

/// The fields after the program's name, which may hold spaces and brackets itself. The first of them is number 3 of
/// proc(5).
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) as f64 / TICKS_PER_SECOND)
}

fn start_time(stat: &str, system: &str) -> Option<f64> {
    let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted as f64 + stat_field(stat, 22)? as f64 / TICKS_PER_SECOND)
}

fn status_field(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// The one that reads the directory is not counted.
fn open_fds() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(entries.saturating_sub(1))
}

fn max_fds(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 9000 300 18446";

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start_time(STAT, "cpu 1\nbtime 1700000000\n"), Some(1_700_000_010.0));
    }

    #[test]
    fn what_is_missing_or_strange_is_left_out() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(start_time(STAT, "cpu 1"), None);
        assert_eq!(max_fds("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(max_fds("Max open files            1024                 4096                 files"), Some(1024));
        assert_eq!(status_field("VmRSS:\t  1200 kB\n", "VmRSS:"), Some(1200));
    }
}
