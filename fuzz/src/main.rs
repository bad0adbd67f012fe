//! One program for all targets, so that the router is built and linked once: `FUZZ_TARGET=path fuzz CORPUS…`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use scorefront::testing::fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET={name} is none of {}", names.join(" "));
        std::process::exit(2)
    })
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
