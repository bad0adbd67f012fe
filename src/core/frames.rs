//! HTTP/2 frames of a client that may move nothing on, counted as their bytes come.
//!
//! Owner: the socket of one HTTP/2 connection (`data::watched`).
//! Holds: no more of them are let through than there were at first, and as many more as what was moved has allowed: so
//!        what they cost is in proportion to what the client was served. Nothing is kept of a frame but its head.
//! Does not: check frames, which is the business of the parser behind it, nor read clocks: a connection on which
//!        nothing moves ends by its time-outs.
//!
//! Each frame costs the router some work, a few of them an answer, and nothing in the protocol limits how many a client
//! may send: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, GOAWAY, kinds that nobody knows, and DATA, which may be
//! empty or for a stream that is over. HEADERS and CONTINUATION are not counted: the parser limits those of one head and
//! those that are no request, and each request allows more.

/// Bytes of the head of a frame.
const HEAD: usize = 9;
/// What an HTTP/2 connection begins with: `PRI * HTTP/2.0`, an empty line, `SM`, and another.
const PREFACE: u32 = 24;

const HEADERS: u8 = 1;
const PING: u8 = 6;
/// The flag of a PING that answers one.
const ACK: u8 = 1;
const CONTINUATION: u8 = 9;

/// See the head of the file.
#[derive(Debug)]
pub struct Frames {
    /// How many more may come.
    left: u32,
    /// Bytes to pass over before the next head.
    skip: u32,
    /// As much of a head as has come.
    head: [u8; HEAD],
    have: usize,
    ponged: bool,
}

impl Frames {
    /// From the first byte of a connection. `left` may come without anything being moved.
    pub fn new(left: u32) -> Self {
        Self { left, skip: PREFACE, head: [0; HEAD], have: 0, ponged: false }
    }

    /// So many more may come, because something moved.
    pub fn allow(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames);
    }

    /// Takes the next bytes. False once there were too many frames.
    #[must_use]
    pub fn read(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let passed = bytes.len().min(self.skip as usize);
            self.skip -= passed as u32;
            bytes = bytes.get(passed..).unwrap_or_default();
            let room = self.head.iter_mut().skip(self.have);
            let took = room.zip(bytes).map(|(place, &byte)| *place = byte).count();
            self.have += took;
            if self.have < HEAD {
                return true;
            }
            self.have = 0;
            bytes = bytes.get(took..).unwrap_or_default();
            if !self.count() {
                return false;
            }
        }
    }

    /// Whether an answer to a PING came since this was asked last.
    pub fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.ponged)
    }

    /// Counts the frame whose head is there.
    fn count(&mut self) -> bool {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]);
        self.ponged |= kind == PING && flags & ACK != 0;
        if matches!(kind, HEADERS | CONTINUATION) {
            return true;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, 1], &vec![0; length]].concat()
    }

    fn after_preface(max: u32) -> Frames {
        let mut frames = Frames::new(max);
        assert!(frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        frames
    }

    #[test]
    fn as_many_as_were_allowed_are_let_through() {
        for (kind, length) in [(0, 10), (0, 0), (PING, 8), (4, 0), (2, 5), (8, 4), (3, 4), (7, 8), (0xee, 70_000)] {
            let mut frames = after_preface(3);
            assert!(frames.read(&frame(kind, 0, length).repeat(3)), "three of kind {kind}");
            frames.allow(2);
            assert!(frames.read(&frame(kind, 0, length).repeat(2)), "two more of kind {kind}");
            assert!(!frames.read(&frame(kind, 0, length)), "a third more of kind {kind}");
        }
    }

    #[test]
    fn answers_to_a_ping_are_seen_and_other_frames_are_none() {
        let mut frames = after_preface(9);
        assert!(frames.read(&frame(PING, 0, 8)) && frames.read(&frame(4, ACK, 0)));
        assert!(!frames.take_pong());
        assert!(frames.read(&frame(PING, ACK, 8)));
        assert!(frames.take_pong() && !frames.take_pong());
    }

    #[test]
    fn heads_are_not_counted() {
        let mut frames = after_preface(1);
        for kind in [HEADERS, CONTINUATION] {
            assert!(frames.read(&frame(kind, 0, 30).repeat(100)), "kind {kind}");
        }
        assert!(frames.read(&frame(PING, 0, 8)));
    }

    proptest! {
        /// However the bytes arrive, the same frame is the one too many.
        #[test]
        fn the_cuts_between_reads_do_not_matter(
            kinds in prop::collection::vec((0..12_u8, 0..16_u8, 0..300_usize), 0..40),
            cuts in prop::collection::vec(1..40_usize, 1..20),
            max in 0..20_u32,
        ) {
            let bytes: Vec<u8> = kinds.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
            let whole = after_preface(max).read(&bytes);
            let (mut frames, mut rest, mut cuts) = (after_preface(max), &bytes[..], cuts.iter().cycle());
            let mut all = true;
            while all && !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(cuts.next().copied().unwrap_or(1)));
                (all, rest) = (frames.read(piece), later);
            }
            prop_assert_eq!(all, whole);
        }
    }
}
