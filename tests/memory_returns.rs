//! Freed memory goes back to the kernel although nothing more happens. A process of its own: with the allocator of the
//! program, and alone with its memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its own memory has failed")]

use std::fs;

use scorefront::ops::memory;
use scorefront::testing::eventually;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MIB: usize = 1 << 20;

/// What 10,000 connections give back when they come to rest together, in blocks as they have them.
const FREED: usize = 160 * MIB;
const BLOCK: usize = 8 << 10;

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn what_was_freed_at_once_is_given_back_without_any_other_work() {
    let before = resident();
    let blocks: Vec<_> = (0..FREED / BLOCK).map(|_| vec![1_u8; BLOCK]).collect();
    assert!(resident() > before + FREED / 2, "it was there");
    drop(blocks);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(memory::give_back());
        eventually("it is given back", async || resident() < before + FREED / 4).await;
    });
}
