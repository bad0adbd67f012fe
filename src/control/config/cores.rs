//! How many workers fit the machine: the CPU limit of the cgroup rounded up, but not more than the cores that the
//! process may run on.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::Controller;

/// As the kernel says below `root` (`/` outside tests); 1 where it says nothing.
pub(super) fn workers(root: &Path) -> usize {
    let cores = allowed_cores(root).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    QUOTA.limit(root).map_or(cores, |limit| limit.min(cores)).max(1)
}

/// `Cpus_allowed_list` of the process: ranges and single numbers, such as `0-3,8`.
fn allowed_cores(root: &Path) -> Option<usize> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let sizes = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    sizes.sum()
}

const QUOTA: Controller<usize> = Controller { name: "cpu", v2: quota_v2, v1: quota_v1 };

fn quota_v2(group: PathBuf) -> Option<usize> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    rounded_up(quota, period)
}

fn quota_v1(group: PathBuf) -> Option<usize> {
    let quota = fs::read_to_string(group.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?;
    rounded_up(quota.trim(), period.trim())
}

/// `max` and -1 stand for "no limit" and do not parse.
fn rounded_up(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            fs::write(path, content).expect("writes");
        }
        root
    }

    const EIGHT: (&str, &str) = ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-3,8-11\n");

    #[test]
    fn without_a_limit_it_is_the_allowed_cores() {
        assert_eq!(workers(machine(&[EIGHT]).path()), 8);
        let unlimited = [EIGHT, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "max 100000\n")];
        assert_eq!(workers(machine(&unlimited).path()), 8);
    }

    #[test]
    fn the_limit_of_version_2_is_rounded_up_and_the_smallest_on_the_way_counts() {
        let files = [
            EIGHT,
            ("proc/self/cgroup", "0::/pods/a\n"),
            ("sys/fs/cgroup/pods/a/cpu.max", "350000 100000\n"),
            ("sys/fs/cgroup/pods/cpu.max", "150000 100000\n"),
        ];
        assert_eq!(workers(machine(&files).path()), 2);
        let far = [EIGHT, ("proc/self/cgroup", "0::/of/the/host\n"), ("sys/fs/cgroup/cpu.max", "50000 100000\n")];
        assert_eq!(workers(machine(&far).path()), 1);
        let above = [EIGHT, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "6400000 100000\n")];
        assert_eq!(workers(machine(&above).path()), 8);
    }

    #[test]
    fn the_limit_of_version_1_counts_too() {
        let files = [
            EIGHT,
            ("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "210000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(workers(machine(&files).path()), 3);
    }
}
