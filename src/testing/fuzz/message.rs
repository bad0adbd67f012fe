//! A second reader of HTTP/1.1, which shares nothing with the one of the router and forgives nothing: what the router
//! writes has one meaning, also to a reader that knows only the plainest form.

/// A request or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The request line or the status line.
    pub(super) first: String,
    /// In order, with names as they were written.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// Without its chunks.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The values of a header.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &value[..]).collect()
    }

    /// The value of a header that is there exactly once.
    pub(super) fn only(&self, name: &str) -> &[u8] {
        let all = self.all(name);
        assert!(all.len() == 1, "{name}: {} times in {self:?}", all.len());
        all.first().copied().unwrap_or_default()
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        let version = ["HTTP/1.1 ", "HTTP/1.0 "].into_iter().find_map(|version| self.first.strip_prefix(version));
        let status = version.and_then(|rest| rest.get(..3)?.parse().ok());
        status.unwrap_or_else(|| panic!("no status: {self:?}"))
    }
}

/// The first request of these bytes and its length, once it is whole.
pub(super) fn read_request(bytes: &[u8]) -> Option<(Message, usize)> {
    let (mut message, head) = read_head(bytes)?;
    let words: Vec<&str> = message.first.split(' ').collect();
    assert!(matches!(words[..], [_, target, "HTTP/1.1"] if target.starts_with('/')), "{message:?}");
    for name in ["host", "traceparent", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"] {
        message.only(name);
    }
    let body = read_body(&mut message, bytes.get(head..)?)?;
    Some((message, head + body))
}

/// All answers of these bytes, and what is left of one that is not whole. None of them is to a HEAD.
pub(super) fn read_answers(mut bytes: &[u8]) -> (Vec<Message>, usize) {
    let mut answers = Vec::new();
    while let Some((mut message, head)) = read_head(bytes) {
        let body = match message.status() {
            100..200 | 204 | 304 => Some(0),
            _ => read_body(&mut message, bytes.get(head..).unwrap_or_default()),
        };
        let Some(body) = body else { break };
        bytes = bytes.get(head + body..).unwrap_or_default();
        answers.push(message);
    }
    (answers, bytes.len())
}

fn read_head(bytes: &[u8]) -> Option<(Message, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut lines = bytes.get(..end)?.split(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{}", bytes.escape_ascii());
        line
    });
    let first = String::from_utf8(lines.next()?.to_vec()).expect("a first line of text");
    let headers = lines.map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon in each line");
        let (name, value) = line.split_at(colon);
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        assert!(!name.is_empty() && name.iter().all(is_token), "{}", line.escape_ascii());
        (String::from_utf8_lossy(name).into_owned(), value[1..].trim_ascii().to_vec())
    });
    Some((Message { first, headers: headers.collect(), body: Vec::new() }, end + 4))
}

/// The body after a head. Says how long it is with its chunks.
fn read_body(message: &mut Message, bytes: &[u8]) -> Option<usize> {
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    let length = match (&lengths[..], &codings[..]) {
        ([], []) => 0,
        ([length], []) => {
            assert!(length.iter().all(u8::is_ascii_digit), "{message:?}");
            std::str::from_utf8(length).ok()?.parse().expect("a length")
        }
        ([], [b"chunked"]) => return read_chunks(message, bytes),
        _ => panic!("two framings: {message:?}"),
    };
    message.body = bytes.get(..length)?.to_vec();
    Some(length)
}

fn read_chunks(message: &mut Message, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).expect("the size of a chunk");
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        if size == 0 {
            // Trailers, up to an empty line.
            let trailers = rest.get(end..)?.windows(4).position(|four| four == b"\r\n\r\n")?;
            return Some(at + end + trailers + 4);
        }
        let from = at + end + 2;
        message.body.extend_from_slice(bytes.get(from..from + size)?);
        assert_eq!(bytes.get(from + size..from + size + 2)?, b"\r\n", "the end of a chunk");
        at = from + size + 2;
    }
}
