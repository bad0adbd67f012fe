//! Limits of the process's cgroup, of version 1 or 2: the smallest of its own and of those above it.

use std::fs;
use std::path::{Path, PathBuf};

/// How the limits of one controller are read, in both versions; from the directory of a cgroup.
pub(super) struct Controller<T> {
    pub(super) name: &'static str,
    pub(super) v2: fn(PathBuf) -> Option<T>,
    pub(super) v1: fn(PathBuf) -> Option<T>,
}

impl<T: Ord> Controller<T> {
    /// The limit as the kernel says below `root` (`/` outside tests).
    pub(super) fn limit(&self, root: &Path) -> Option<T> {
        let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let limits = membership.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            match controllers {
                "" => smallest(&root.join("sys/fs/cgroup"), path, self.v2),
                _ if controllers.split(',').any(|name| name == self.name) => {
                    let mounted = [controllers, self.name].map(|name| root.join("sys/fs/cgroup").join(name));
                    mounted.iter().find_map(|mount| smallest(mount, path, self.v1))
                }
                _ => None,
            }
        });
        limits.min()
    }
}

/// Walks from the cgroup up to the mount. In a container the path may be one of the host that is not there; then
/// the mount itself, which is always looked at, is the container's cgroup.
fn smallest<T: Ord>(mount: &Path, path: &str, read: fn(PathBuf) -> Option<T>) -> Option<T> {
    let group = Path::new(path.trim_start_matches('/'));
    group.ancestors().filter_map(|above| read(mount.join(above))).min()
}
