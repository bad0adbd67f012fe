//! HTTP/2 requests that would be something else in HTTP/1.1, frame by frame: none of them reaches a replica with more
//! headers, more requests or another body than it has.

use scorefront::testing::PATIENCE;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) type Fields<'a> = &'a [(&'a str, &'a str)];

pub(crate) const REQUEST: Fields<'_> = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/api/v1/endpoint/iris/score"),
    (":authority", "models.test"),
    ("authorization", "Bearer secret-1"),
];

const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields that nobody checks on the way.
pub(crate) fn block(fields: Fields<'_>) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Sends one request. Gives the kind of the first frame that says what became of it, and its payload.
async fn send(router: &Router, fields: Fields<'_>, body: &[u8]) -> (u8, Vec<u8>) {
    let mut socket = TcpStream::connect(router.address).await.unwrap();
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &block(fields)),
        frame(DATA, END_STREAM, 1, body),
    ]
    .concat();
    socket.write_all(&bytes).await.unwrap();
    let outcome = async {
        loop {
            let mut head = [0; 9];
            if socket.read_exact(&mut head).await.is_err() {
                return (GOAWAY, Vec::new());
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            socket.read_exact(&mut payload).await.unwrap();
            if matches!(head[3], HEADERS | RESET | GOAWAY) {
                return (head[3], payload);
            }
        }
    };
    timeout(PATIENCE, outcome).await.expect("the router says something")
}

async fn start() -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    (replica, router)
}

/// The first byte of an answer's fields where its status is 200: the eighth entry of the static table.
const OK: u8 = 0x88;

#[tokio::test]
async fn what_is_forbidden_in_http2_never_reaches_a_replica() {
    let (replica, router) = start().await;
    let with = |extra: Fields<'static>| [REQUEST, extra].concat();
    let but = |name: &'static str, value: &'static str| -> Vec<_> {
        REQUEST.iter().map(|&(n, v)| if n == name { (n, value) } else { (n, v) }).collect()
    };
    let cases = [
        ("a line end in a value", with(&[("x", "a\r\nx-hidden: b")])),
        ("a line feed in a value", with(&[("x", "a\nx-hidden: b")])),
        ("a zero byte in a value", with(&[("x", "a\0b")])),
        ("a line end in a name", with(&[("x: a\r\nx-hidden", "b")])),
        ("a colon in a name", with(&[("x-hidden: a", "b")])),
        ("a capital in a name", with(&[("X-Hidden", "b")])),
        ("an empty name", with(&[("", "b")])),
        ("a transfer coding", with(&[("transfer-encoding", "chunked")])),
        ("a connection header", with(&[("connection", "x-hidden")])),
        ("an upgrade", with(&[("upgrade", "h2c")])),
        ("a length that is too long", with(&[("content-length", "5")])),
        ("a length that is too short", with(&[("content-length", "1")])),
        ("two lengths", with(&[("content-length", "2"), ("content-length", "3")])),
        ("a late pseudo header", with(&[("x", "a"), (":path", "/hidden")])),
        ("a second path", with(&[(":path", "/hidden")])),
        ("an unknown pseudo header", with(&[(":hidden", "a")])),
        ("a path with a request in it", but(":path", "/ HTTP/1.1\r\nHost: h\r\n\r\nGET /hidden")),
        ("a path with a blank", but(":path", "/api/v1/endpoint/iris/score HTTP/1.1")),
        ("an empty path", but(":path", "")),
        ("a method with a request in it", but(":method", "GET /hidden HTTP/1.1\r\nx:")),
        ("an authority with a line end", but(":authority", "h\r\nx-hidden: a")),
        ("no path", REQUEST.iter().filter(|(name, _)| *name != ":path").copied().collect()),
    ];
    for (what, fields) in &cases {
        let (kind, payload) = send(&router, fields, b"ab").await;
        assert!(kind != HEADERS || payload.first() != Some(&OK), "{what} was answered 200");
        let seen = replica.seen();
        // A length that does not fit shows only when the body ends: the replica never gets a whole request then.
        assert!(seen.iter().all(|seen| !seen.head.contains("hidden") && seen.body != b"ab"), "{what}: {seen:?}");
    }
    let (kind, payload) = send(&router, REQUEST, b"ab").await;
    assert_eq!((kind, payload.first()), (HEADERS, Some(&OK)), "a good one is served");
    router.drain().await;
}

#[tokio::test]
async fn a_host_beside_an_authority_is_forwarded_in_one_reading() {
    let (replica, router) = start().await;
    let (kind, payload) = send(&router, &[REQUEST, &[("host", "other.test")]].concat(), b"ab").await;
    let seen = replica.seen();
    if (kind, payload.first()) == (HEADERS, Some(&OK)) {
        let hosts: Vec<_> =
            seen[0].head.lines().filter(|line| line.to_ascii_lowercase().starts_with("host:")).collect();
        assert_eq!(hosts.len(), 1, "{hosts:?}");
    } else {
        assert!(seen.is_empty(), "{seen:?}");
    }
    router.drain().await;
}
