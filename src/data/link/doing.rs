//! The states of a client connection.

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Waiting for the first byte of the next request.
    Idle = 0,
    /// Reading a head.
    Head = 1,
    /// At least one exchange is under way.
    Exchange = 2,
    /// Waiting for the first byte of the first request.
    Fresh = 3,
}

impl Doing {
    /// From its number.
    pub(super) fn of(number: u8) -> Self {
        match number {
            0 => Self::Idle,
            1 => Self::Head,
            3 => Self::Fresh,
            _ => Self::Exchange,
        }
    }
}
