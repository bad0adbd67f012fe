//! Whether a cost has grown. Costs only go down: one that fell is to be written down too, so that it stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Growth and fall of instructions up to this part are noise: of another layout, a detail of another machine.
const TOLERANCE: f64 = 0.03;

/// An allocation more in fewer than one exchange of twenty: a table that doubles, a thread that is woken.
const NOW_AND_THEN: f64 = 0.05;

/// What one exchange of some shape costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Of the worker's thread, without the kernel.
    pub(crate) instructions: f64,
    /// Reallocations included.
    pub(crate) allocations: f64,
    /// In them.
    pub(crate) bytes: f64,
}

/// What `examples/exchange/cost.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The compiler that it was counted with.
    pub(crate) compiler: String,
    /// By the name of the shape.
    pub(crate) shapes: BTreeMap<String, Cost>,
}

/// How a cost compares with the one that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No more and no less.
    Same,
    /// More, in these respects.
    Grown(Vec<&'static str>),
    /// Less, in these respects, and in none more.
    Fallen(Vec<&'static str>),
}

/// Compares. Bytes are for the reader only: they come and go with the sizes of types.
pub(crate) fn judge(known: Cost, now: Cost) -> Verdict {
    let instructions = now.instructions / known.instructions - 1.0;
    let allocations = now.allocations - known.allocations;
    let which = |instructions: bool, allocations: bool| {
        let respects = [("instructions", instructions), ("allocations", allocations)];
        respects.into_iter().filter_map(|(name, holds)| holds.then_some(name)).collect::<Vec<_>>()
    };
    let grown = which(instructions > TOLERANCE, allocations > NOW_AND_THEN);
    let fallen = which(instructions < -TOLERANCE, allocations < -NOW_AND_THEN);
    match (grown.is_empty(), fallen.is_empty()) {
        (false, _) => Verdict::Grown(grown),
        (true, false) => Verdict::Fallen(fallen),
        (true, true) => Verdict::Same,
    }
}
