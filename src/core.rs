//! Decisions without I/O: values in, decisions out. No clock, no socket, no thread, no log in here; time and
//! randomness come in as arguments. What is alive (gates, counters) is in `state` and what it is made of.

pub mod addresses;
pub mod assemble;
pub mod balance;
pub mod certificates;
pub mod cors;
pub mod count;
pub mod debts;
pub mod descriptors;
pub mod dice;
pub mod facts;
pub mod failures;
pub mod frames;
pub mod gate;
pub mod keys;
pub mod limiter;
pub mod limits;
pub mod memory;
pub mod outcome;
pub mod pace;
pub mod patience;
#[cfg(test)]
mod properties;
pub mod proxy_protocol;
pub mod queue;
pub mod rate;
pub mod record;
pub mod replica_tls;
pub mod route;
pub mod shares;
pub mod slots;
pub mod snapshot;
pub mod split;
pub mod state;
pub mod subjects;
mod sync;
pub mod telling;
pub mod token;
pub(crate) mod turn;
pub mod vitals;
pub mod x509;
