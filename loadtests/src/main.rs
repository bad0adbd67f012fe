//! Load tests: Scorefront beside its peers, all in one run on one machine, because only ratios of one run count.
//!
//! Holds: traffic goes to loopback only; every scenario is bounded in requests and time, and ends the processes that
//! it started. `README.md` describes the method.

mod contenders;
mod cost;
mod crowd;
mod dice;
mod gauges;
mod generator;
mod machine;
mod manifests;
mod process;
mod replica;
mod report;
mod router;
mod soak;
mod waiting;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Scorefront beside its peers: waiting and cost.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// How long requests wait for one of 12 one-slot replicas, next to one HAProxy with `maxconn 1` per server.
    Waiting(waiting::Arguments),
    /// CPU time per small request, next to nginx, HAProxy and Envoy.
    Cost(cost::Arguments),
    /// Good requests beside thousands of clients that are as slow as can be.
    Crowd(crowd::Arguments),
    /// Mixed load for a long time, while everything around the router changes.
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let verdict = match Arguments::parse().scenario {
        Scenario::Waiting(arguments) => waiting::run(&arguments),
        Scenario::Cost(arguments) => cost::run(&arguments),
        Scenario::Crowd(arguments) => crowd::run(&arguments),
        Scenario::Soak(arguments) => soak::run(&arguments),
    };
    match verdict {
        Ok(report::Verdict::Passed) => ExitCode::SUCCESS,
        Ok(report::Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtests: {error:#}");
            ExitCode::FAILURE
        }
    }
}
