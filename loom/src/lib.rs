//! What the gate is made of, compiled from the router's own files. The models are in `src/core/gate/loom.rs`.

#[path = "../../src/core"]
pub mod core {
    pub mod balance;
    pub mod count;
    pub mod dice;
    pub mod facts;
    pub mod gate;
    pub mod outcome;
    pub mod pace;
    pub mod queue;
    pub mod slots;
    pub mod snapshot;
    pub mod split;
    pub mod state;
    mod sync;
}
