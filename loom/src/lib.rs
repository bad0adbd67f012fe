//! What the gate is made of, compiled from the router's own files. The models are in `src/core/gate/loom.rs`.

#[path = "../../src/core"]
pub mod core {
    pub mod balance;
    pub mod cors;
    pub mod count;
    pub mod debts;
    pub mod dice;
    pub mod facts;
    pub mod gate;
    pub mod limiter;
    pub mod outcome;
    pub mod pace;
    pub mod queue;
    pub mod rate;
    pub mod replica_tls;
    pub mod shares;
    pub mod slots;
    pub mod snapshot;
    pub mod split;
    pub mod state;
    pub mod subjects;
    mod sync;
    mod turn;
}

/// The models ask for no key; what is behind `core::keys` would bring a whole library of cryptography here.
impl core::facts::KeyDigest {
    /// Whether both are digests of one key, of which no model makes any.
    pub fn is_of_same_key(&self, other: &Self) -> bool {
        self == other
    }
}
