//! How much memory the process may use where nobody said: four fifths of what its cgroup may have, or else the machine.
//! The rest is for what is not the process's own but counts all the same: buffers of sockets and pages of files.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::Controller;

const LIMIT: Controller<u64> = Controller { name: "memory", v2: limit_v2, v1: limit_v1 };

/// In bytes, as the kernel says below `root` (`/` outside tests); 0 where it says nothing.
pub(super) fn share(root: &Path) -> u64 {
    let allowed = [LIMIT.limit(root), installed(root)].into_iter().flatten().min();
    allowed.unwrap_or(0) / 5 * 4
}

/// `max` stands for "no limit" and does not parse.
fn limit_v2(group: PathBuf) -> Option<u64> {
    fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()
}

/// No limit is a number there too: a huge one.
fn limit_v1(group: PathBuf) -> Option<u64> {
    fs::read_to_string(group.join("memory.limit_in_bytes")).ok()?.trim().parse().ok()
}

/// `MemTotal` of the machine.
fn installed(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            fs::write(path, content).expect("writes");
        }
        share(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:   1 kB\n");
    const V2: (&str, &str) = ("proc/self/cgroup", "0::/pods/a\n");
    const V1: (&str, &str) = ("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n");

    #[test]
    fn it_is_four_fifths_of_the_smallest_limit_of_version_2() {
        let own = ("sys/fs/cgroup/pods/a/memory.max", "1258291200\n");
        assert_eq!(share_of(&[MACHINE, V2, own]), 1_006_632_960);
        let above = ("sys/fs/cgroup/pods/memory.max", "1000000000\n");
        assert_eq!(share_of(&[MACHINE, V2, own, above]), 800_000_000);
    }

    #[test]
    fn version_1_counts_and_its_huge_number_is_no_limit() {
        let own = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000000\n");
        assert_eq!(share_of(&[MACHINE, V1, own]), 800_000_000);
        let none = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(share_of(&[MACHINE, V1, none]), 13_107_200_000);
    }

    #[test]
    fn without_a_limit_the_machine_counts_and_without_a_word_nothing_does() {
        assert_eq!(share_of(&[MACHINE, V2, ("sys/fs/cgroup/memory.max", "max\n")]), 13_107_200_000);
        assert_eq!(share_of(&[MACHINE]), 13_107_200_000);
        assert_eq!(share_of(&[]), 0);
        assert_eq!(share_of(&[("proc/meminfo", "MemTotal: none\n")]), 0);
    }
}
