//! Load tests: Scorefront beside its peers, all in one run on one machine, because only ratios of one run count; and what
//! only time and numbers show of it alone.
//!
//! Holds: traffic goes to loopback only; every scenario is bounded in requests and time, and ends the processes that
//! it started. `README.md` describes the method.

mod churn;
mod cluster;
mod contenders;
mod crowd;
mod dice;
mod fairness;
mod floor;
mod gauges;
mod generator;
mod latency;
mod machine;
mod manifests;
mod memory;
mod origin;
mod picture;
mod process;
mod replica;
mod report;
mod router;
mod scaling;
mod soak;
mod speed;
mod train;
mod waiting;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Verdict;

/// Scorefront beside its peers: waiting, speed, latency, churn, memory; and alone: scaling, crowd, fairness, soak.
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
    /// CPU time per request under ten shapes of traffic, next to nginx, HAProxy, Envoy and a bare forwarder.
    Speed(speed::Arguments),
    /// What a front-end adds to the time of a request at 5,000 requests a second.
    Latency(latency::Arguments),
    /// What 1,000 changed EndpointSlices a second do to requests.
    Churn(churn::Arguments),
    /// Requests per second and their cost with one worker and with two, with few connections and with many.
    Scaling(scaling::Arguments),
    /// Resident memory at rest and with 10,000 idle connections.
    Memory(memory::Arguments),
    /// Good requests beside thousands of clients that are as slow as can be.
    Crowd(crowd::Arguments),
    /// Good requests beside a flood to another endpoint, whose replicas are broken.
    Fairness(fairness::Arguments),
    /// Mixed load for a long time, while everything around the router changes.
    Soak(soak::Arguments),
    /// A trial run for a build that counts what is called (`deploy/build-binary`).
    Train(train::Arguments),
    /// The bare forwarder, as `speed` starts it.
    #[command(hide = true)]
    Floor(floor::Arguments),
    /// A replica, as `speed` starts it.
    #[command(hide = true)]
    Origin(origin::Arguments),
    /// Clients, as `speed` starts them.
    #[command(hide = true)]
    Clients(speed::clients::Arguments),
}

fn main() -> ExitCode {
    let verdict = match Arguments::parse().scenario {
        Scenario::Waiting(arguments) => waiting::run(&arguments),
        Scenario::Crowd(arguments) => crowd::run(&arguments),
        Scenario::Fairness(arguments) => fairness::run(&arguments),
        Scenario::Soak(arguments) => soak::run(&arguments),
        Scenario::Speed(arguments) => speed::run(&arguments),
        Scenario::Latency(arguments) => latency::run(&arguments),
        Scenario::Churn(arguments) => churn::run(&arguments),
        Scenario::Scaling(arguments) => scaling::run(&arguments),
        Scenario::Memory(arguments) => memory::run(&arguments),
        Scenario::Train(arguments) => train::run(&arguments),
        Scenario::Floor(arguments) => floor::run(&arguments).map(|()| Verdict::Passed).map_err(Into::into),
        Scenario::Origin(arguments) => origin::run(&arguments).map(|()| Verdict::Passed).map_err(Into::into),
        Scenario::Clients(arguments) => speed::clients::run(&arguments).map(|()| Verdict::Passed),
    };
    match verdict {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtests: {error:#}");
            ExitCode::FAILURE
        }
    }
}
