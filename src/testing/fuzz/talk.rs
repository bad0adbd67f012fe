//! Whole connections: how bytes arrive changes nothing, and whatever goes wrong is told in the form that is promised.

use super::message::{Message, read_answers};
use super::stack::{Reply, Said, converse};

/// Bytes of a connection, so that a run is quick.
const LENGTH_MAX: usize = 2 << 10;

/// What comes of a connection depends on its bytes, not on how they were cut on their way. The first four bytes say where
/// to cut the others: as parts of 256; four times 255 is between all.
pub(super) fn arrival(bytes: &[u8]) {
    let Some((&places, rest)) = bytes.split_first_chunk::<4>() else { return };
    // No head is left without its end: hyper looks at the first part of one, and then not before all of it is there. So
    // one that cannot become right is refused at once or at its end.
    let rest = &[rest, b"\r\n\r\n"].concat()[..];
    // What HTTP/2 answers when is up to its frames.
    if rest.len() > LENGTH_MAX || contains(rest, b"PRI * HTTP/2.0") {
        return;
    }
    let at_once = tell(&[rest], Reply::Well);
    let cut = tell(&cut(rest, places), Reply::Well);
    assert!(at_once == cut, "{at_once}\ncut at {places:?}\n{cut}");
    assert!(at_once.closed, "it ends when the client has said everything");
    if !contains(rest, b"HEAD") {
        let (answers, _) = read_answers(&at_once.answers);
        let taken = answers.iter().filter(|answer| answer.body == b"taken").count();
        assert_eq!(taken, at_once.requests.len(), "one answer to each request: {at_once:?}");
    }
}

fn cut(bytes: &[u8], mut places: [u8; 4]) -> Vec<&[u8]> {
    if places == [255; 4] {
        return bytes.chunks(1).collect();
    }
    places.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for place in places {
        let to = bytes.len() * usize::from(place) / 256;
        pieces.extend(bytes.get(from..to).filter(|piece| !piece.is_empty()));
        from = to;
    }
    pieces.extend(bytes.get(from..));
    pieces
}

/// Without the lines that tell the time.
fn tell(pieces: &[&[u8]], reply: Reply<'_>) -> Said {
    let mut said = converse(pieces, reply);
    let lines = said.answers.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"date: "));
    said.answers = lines.flatten().copied().collect();
    said
}

/// What the router answers by itself has the form that is promised, whatever the client says, up to the first `0xff`, and
/// whatever a replica says after that, which is never an answer.
pub(super) fn errors(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0xff).unwrap_or(bytes.len());
    let (client, replica) = bytes.split_at_checked(at).unwrap_or_default();
    if bytes.len() > LENGTH_MAX || contains(client, b"HEAD") || contains(client, b"PRI * HTTP/2.0") {
        return;
    }
    // No answer begins like this.
    let raw = [b"Z", replica].concat();
    let said = converse(&[client], Reply::Raw(if replica.len() > 1 { &raw } else { b"" }));
    let (answers, left) = read_answers(&said.answers);
    assert_eq!(left, 0, "a part of an answer: {}", said.answers.escape_ascii());
    for answer in answers.iter().filter(|answer| answer.status() >= 200) {
        check_error(answer);
    }
}

fn check_error(answer: &Message) {
    if answer.status() == 200 {
        return assert_eq!(answer.body, b"Healthy\n", "nothing else is well: {answer:?}");
    }
    assert!((400..600).contains(&answer.status()) && answer.body.len() <= 2048, "{answer:?}");
    assert_eq!(answer.only("content-type"), b"application/json");
    assert_eq!(answer.only("content-length"), answer.body.len().to_string().as_bytes());
    answer.only("x-ms-request-id");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("an error is JSON");
    let (whole, error) = (body.as_object().expect("an object"), body["error"].as_object().expect("an error"));
    assert!(whole.len() == 1 && error.len() == 3, "{body}");
    assert!(error["code"].as_str().is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_alphabetic())), "{body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert_eq!(error["requestId"].as_str().map(str::as_bytes), Some(answer.only("x-request-id")), "{body}");
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
