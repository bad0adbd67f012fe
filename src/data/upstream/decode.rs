//! The body of an answer, taken out of its framing: bytes in, pieces of the body out, without a copy.
//!
//! Holds: what comes out does not depend on the pieces in which the bytes came; a body is over only when its framing
//!        says so; sizes do not overflow, and what is thrown away or kept (extensions, trailers) has a limit.
//! Does not: read, write, or know of connections.

use bytes::{Buf as _, Bytes};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::head::{Framing, HEADERS_MAX};

/// Bytes of chunk extensions, and of trailers, in one body.
const EXTENSIONS_MAX: u16 = 16 << 10;
/// Blanks behind the size of one chunk.
const BLANKS_MAX: u8 = 64;
const TRAILERS_MAX: usize = 16 << 10;

/// Digits of a chunk's size: a 64-bit number.
const DIGITS_MAX: u8 = 16;

/// What is wrong with a body.
pub(crate) type BodyFlaw = &'static str;

/// See the head of the file.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So much is still to come.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// Whatever comes.
    UntilClose,
    /// It is over.
    Over,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Nothing | Framing::Length(0) => Self::Over,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// The next piece of the body. Without one, all of `input` is used up, or the body is over.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, BodyFlaw> {
        let piece = match self {
            Self::Length(left) => {
                let piece = take(input, left);
                if *left == 0 {
                    *self = Self::Over;
                }
                piece
            }
            Self::Chunked(chunks) => chunks.next(input)?,
            Self::UntilClose => std::mem::take(input),
            Self::Over => Bytes::new(),
        };
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    /// So many bytes of the body passed by: no more than are to come.
    pub(crate) fn pass(&mut self, bytes: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                *self = Self::Over;
            }
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self) -> Result<(), BodyFlaw> {
        match self {
            Self::UntilClose => *self = Self::Over,
            _ if self.is_over() => {}
            _ => return Err("it ended before its body did"),
        }
        Ok(())
    }

    /// Whether all of it came.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Over => true,
            Self::Chunked(chunks) => chunks.state == State::Over,
            Self::Length(_) | Self::UntilClose => false,
        }
    }

    /// How much is to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Over => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Whether there are trailers to be taken.
    pub(crate) fn has_trailers(&self) -> bool {
        matches!(self, Self::Chunked(chunks) if chunks.trailers.is_some())
    }

    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        if let Self::Chunked(chunks) = self { chunks.trailers.take().map(|trailers| *trailers) } else { None }
    }
}

/// Takes as much of the input as there may be.
fn take(input: &mut Bytes, left: &mut u64) -> Bytes {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let piece = if input.len() <= most { std::mem::take(input) } else { input.split_to(most) };
    *left -= piece.len() as u64;
    piece
}

/// The size that a chunk begins with, and the length of its line, where there is nothing else in that and it is not the end.
fn usual_size(line: &[u8]) -> Option<(u64, usize)> {
    const DIGITS: usize = 8;
    let mut size = 0;
    for (at, &byte) in line.iter().take(DIGITS + 1).enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if size > 0 && line.get(at + 1) == Some(&b'\n') => return Some((size, at + 2)),
            _ => return None,
        };
        size = size << 4 | u64::from(digit);
    }
    None
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    AfterSize,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the begin of a line of trailers, or of the empty one.
    Trailers,
    TrailerLine,
    TrailerLf,
    EndLf,
    Over,
}

/// Chunks (RFC 9112, section 7.1). Small, because the body of every answer has room for it, and few lines of memory are
/// what makes an event of a stream cheap.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    /// What is left of the chunk.
    size: u64,
    digits: u8,
    /// Blanks behind the size of this chunk: some servers pad every size.
    blanks: u8,
    /// Bytes of extensions in all.
    extensions: u16,
    text: Vec<u8>,
    /// In a box, because hardly any answer has some.
    trailers: Option<Box<HeaderMap>>,
    /// What was found wrong behind the last piece.
    flaw: Option<BodyFlaw>,
}

impl Chunks {
    fn next(&mut self, input: &mut Bytes) -> Result<Bytes, BodyFlaw> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        self.skip(input)?;
        if self.state != State::Data {
            return Ok(Bytes::new());
        }
        let piece = take(input, &mut self.size);
        if self.size == 0 {
            self.state = State::DataCr;
            // If the end is there too, it is over now and not only when somebody asks again.
            self.flaw = self.skip(input).err();
        }
        Ok(piece)
    }

    /// Goes over everything that is no data.
    fn skip(&mut self, input: &mut Bytes) -> Result<(), BodyFlaw> {
        let mut used = self.skip_usual(input);
        for &byte in input.iter().skip(used) {
            if matches!(self.state, State::Data | State::Over) {
                break;
            }
            self.state = self.step(byte)?;
            used += 1;
        }
        input.advance(used);
        Ok(())
    }

    /// The same for what nearly all chunks have between them: the end of one, and the bare size of the next. Says how many
    /// bytes of that were there; what is anything else is left.
    fn skip_usual(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        if self.state == State::DataCr && input.starts_with(b"\r\n") {
            (self.state, used) = (State::Start, 2);
        }
        if self.state == State::Start
            && let Some((size, length)) = input.get(used..).and_then(usual_size)
        {
            (self.state, self.size, self.blanks) = (State::Data, size, 0);
            used += length;
        }
        used
    }

    fn step(&mut self, byte: u8) -> Result<State, BodyFlaw> {
        Ok(match (self.state, byte) {
            (State::Start, _) => {
                self.blanks = 0;
                (self.size, self.digits) = (0, 0);
                self.digit(byte).ok_or("a chunk without a size")?;
                State::Size
            }
            (State::Size | State::AfterSize | State::Extension, b'\r') => State::SizeEnd,
            (State::Size | State::AfterSize, b';') => State::Extension,
            (State::Size | State::AfterSize, b' ' | b'\t') => {
                self.blanks += 1;
                if self.blanks > BLANKS_MAX {
                    return Err("too many blanks behind the size of a chunk");
                }
                State::AfterSize
            }
            (State::Size, _) => {
                self.digit(byte).ok_or("a chunk's size that is none")?;
                State::Size
            }
            (State::Extension, b'\n') => return Err("a bare line feed in a chunk extension"),
            (State::Extension, _) => {
                self.extend()?;
                State::Extension
            }
            (State::SizeEnd, b'\n') if self.size == 0 => State::Trailers,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Trailers, b'\r') => State::EndLf,
            (State::Trailers | State::TrailerLine, b'\n') => return Err("a bare line feed in a trailer"),
            (State::TrailerLine, b'\r') => self.keep(byte, State::TrailerLf)?,
            (State::Trailers | State::TrailerLine, _) => self.keep(byte, State::TrailerLine)?,
            (State::TrailerLf, b'\n') => self.keep(byte, State::Trailers)?,
            (State::EndLf, b'\n') => {
                self.read_trailers()?;
                State::Over
            }
            _ => return Err("chunks that are not framed as such"),
        })
    }

    fn digit(&mut self, byte: u8) -> Option<()> {
        let digit = char::from(byte).to_digit(16)?;
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        (self.digits <= DIGITS_MAX).then_some(())
    }

    fn extend(&mut self) -> Result<(), BodyFlaw> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS_MAX { Err("too many chunk extensions") } else { Ok(()) }
    }

    fn keep(&mut self, byte: u8, next: State) -> Result<State, BodyFlaw> {
        self.text.push(byte);
        if self.text.len() > TRAILERS_MAX { Err("too many trailers") } else { Ok(next) }
    }

    fn read_trailers(&mut self) -> Result<(), BodyFlaw> {
        const FLAW: BodyFlaw = "trailers that are none";
        if self.text.is_empty() {
            return Ok(());
        }
        self.text.extend_from_slice(b"\r\n");
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(&self.text, &mut slots) else {
            return Err(FLAW);
        };
        let mut trailers = HeaderMap::with_capacity(lines.len());
        for line in lines {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| FLAW)?;
            trailers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| FLAW)?);
        }
        (self.trailers, self.text) = (Some(Box::new(trailers)), Vec::new());
        Ok(())
    }
}

#[cfg(test)]
#[path = "decode/tests.rs"]
mod tests;
