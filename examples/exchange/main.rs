//! What one exchange costs the router, in instructions and allocations: the same on every run of the same build.
//!
//! A client, a replica and a worker of the router, on loopback, in one thread. The peers act between the turns of the
//! worker's runtime and are not counted; nor is the kernel, nor the thread that writes the access log. Everything else
//! is as in the program: a hundred endpoints, a key, slots, a pool of connections, the log, metrics and ids.
//!
//! - `gate`: counts every shape under callgrind and compares with `examples/exchange/cost.json`; `--bless` writes that instead;
//! - `profile SHAPE`: where the instructions of a shape go;
//! - `run SHAPE EXCHANGES`: what both of them run under callgrind. By itself it counts allocations only;
//! - `lines`: how many lines of memory an exchange needs that the caches have forgotten, where 64 clients ask at once, and
//!   which functions wait for them;
//! - `crowd ROUNDS`: what that runs under callgrind.

#![allow(clippy::expect_used, clippy::panic, reason = "a bench that cannot go on should say why")]
#![allow(clippy::print_stdout, reason = "it is a program for people and for the gate")]

mod callgrind;
mod gate;
mod judge;
mod shape;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use shape::{Bench, Shape};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Until connections are open, pools and tables have grown, and lazy things were made.
const WARM_UP: u32 = 200;

/// The same in rounds of a crowd.
const CROWD_WARM_UP: u32 = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let shape = |name: &str| Shape::ALL.into_iter().find(|shape| shape.name() == name);
    match words[..] {
        ["gate"] => gate::check(),
        ["gate", "--bless"] => gate::bless(),
        ["profile", name] if let Some(shape) = shape(name) => callgrind::profile(shape),
        ["run", name, exchanges] if let (Some(shape), Ok(exchanges)) = (shape(name), exchanges.parse()) => {
            run(shape, exchanges);
            ExitCode::SUCCESS
        }
        ["lines"] => callgrind::lines(),
        ["crowd", rounds] if let Ok(rounds) = rounds.parse() => {
            crowd(rounds);
            ExitCode::SUCCESS
        }
        _ => {
            let names = Shape::ALL.map(Shape::name).join("|");
            println!("exchange gate [--bless] | profile {names} | run {names} EXCHANGES | lines | crowd ROUNDS");
            ExitCode::from(2)
        }
    }
}

/// Runs so many exchanges after the warm-up, and prints what was allocated in the worker's turns.
fn run(shape: Shape, exchanges: u32) {
    let mut bench = Bench::start(shape);
    for _ in 0..WARM_UP {
        bench.exchange(Bench::turn);
    }
    let (mut allocations, mut bytes, mut turns) = (0, 0, 0);
    for _ in 0..exchanges {
        bench.exchange(|bench| {
            let region = Region::new(ALLOCATOR);
            counted_turn(bench);
            let change = region.change();
            allocations += change.allocations + change.reallocations;
            bytes += change.bytes_allocated;
            turns += 1;
        });
    }
    bench.finish(WARM_UP + exchanges);
    println!("exchanges {exchanges} turns {turns} allocations {allocations} bytes {bytes}");
}

/// Lets 64 clients ask at once, so many times after the warm-up.
fn crowd(rounds: u32) {
    let mut bench = Bench::crowded();
    for _ in 0..CROWD_WARM_UP {
        bench.crowd(Bench::turn);
    }
    for _ in 0..rounds {
        bench.crowd(counted_turn);
    }
    let exchanges = (CROWD_WARM_UP + rounds) * u32::try_from(shape::CROWD).expect("some");
    bench.finish(exchanges);
}

/// callgrind collects while the worker's thread is in here, and knows it by its name.
#[inline(never)]
fn counted_turn(bench: &mut Bench) {
    bench.turn();
}
