//! Stamps the commit into `scorefront --version`.

use std::process::Command;

fn main() {
    // The first names a branch and stays the same for all of its commits; the second grows with each of them.
    for file in [".git/HEAD", ".git/logs/HEAD"] {
        if std::path::Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    println!("cargo::rerun-if-env-changed=SCOREFRONT_COMMIT");
    let commit = std::env::var("SCOREFRONT_COMMIT").ok().or_else(head).unwrap_or_default();
    let commit = if commit.is_empty() { "unknown".to_owned() } else { commit };
    println!("cargo::rustc-env=SCOREFRONT_COMMIT={commit}");
}

/// The short hash of HEAD, where git and a checkout are at hand.
fn head() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
