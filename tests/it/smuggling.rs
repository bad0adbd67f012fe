//! Requests that two servers could read in two ways, byte by byte: each is refused and its connection closed, or it is
//! forwarded in exactly one reading. Whatever is hidden in one never reaches a replica as a request of its own.

use scorefront::testing::replica::{ScriptedReplica, answer, ok};
use scorefront::testing::replica::{Seen, Step};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

const PATH: &str = "/api/v1/endpoint/iris/score";
const KEY: &str = "Authorization: Bearer secret-1";
/// What an attacker would have a replica take for the next request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// How a request may be read.
enum Reading {
    /// Not at all.
    Refused,
    /// As one request with this body.
    As(&'static str),
}

use Reading::{As, Refused};

async fn start() -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    (replica, router)
}

/// Sends each on a connection of its own and checks how it was read.
async fn check(cases: &[(&str, String, Reading)]) {
    for (what, bytes, reading) in cases {
        let (replica, router) = start().await;
        let mut client = router.client().await;
        client.try_send(bytes).await;
        match reading {
            Refused => {
                let got = client.answer().await;
                assert!(matches!(got.status, 400 | 404 | 413 | 431), "{what}: {}", got.head);
                assert!(replica.seen().iter().all(|seen| seen.body.is_empty()), "{what}: {:?}", replica.seen());
                if got.header("connection") == Some("close") {
                    client.is_closed().await;
                } else {
                    // There is no doubt where the refused request ends, so another may follow.
                    assert_eq!(client.ask(post("Content-Length: 4\r\n", "next")).await.status, 200, "{what}");
                    assert_eq!(replica.wait_for(1).await[0].body, b"next", "{what}");
                }
            }
            As(body) => {
                assert_eq!(client.answer().await.status, 200, "{what}");
                let seen = replica.wait_for(1).await;
                assert_eq!(String::from_utf8_lossy(&seen[0].body), *body, "{what}");
                is_framed_once(what, &seen[0]);
            }
        }
        assert!(replica.seen().iter().all(|seen| !seen.line().contains("hidden")), "{what}: {:?}", replica.seen());
        drop(client);
        router.drain().await;
    }
}

/// One length or one transfer coding, one host, and no line that is none.
fn is_framed_once(what: &str, seen: &Seen) {
    let count = |name: &str| {
        seen.head.lines().skip(1).filter(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:"))).count()
    };
    assert!(count("content-length") + count("transfer-encoding") <= 1, "{what}: {}", seen.head);
    assert_eq!(count("host"), 1, "{what}: {}", seen.head);
    assert_eq!(seen.line(), "POST /score HTTP/1.1", "{what}");
    assert!(!seen.head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{what}: {:?}", seen.head);
}

fn post(headers: &str, body: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn two_lengths_are_read_in_one_way() {
    let chunked_hidden = format!("0\r\n\r\n{HIDDEN}");
    check(&[
        (
            "a length, then chunks",
            post("Content-Length: 44\r\nTransfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"),
            As("ab"),
        ),
        (
            "chunks, then a length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "2\r\nab\r\n0\r\n\r\n"),
            As("ab"),
        ),
        ("two lengths that differ", post("Content-Length: 0\r\nContent-Length: 36\r\n", HIDDEN), Refused),
        ("a list of lengths that differ", post("Content-Length: 0, 36\r\n", HIDDEN), Refused),
        ("a length with a sign", post("Content-Length: +2\r\n", "ab"), Refused),
        ("a negative length", post("Content-Length: -2\r\n", "ab"), Refused),
        ("a length in hexadecimal", post("Content-Length: 0x2\r\n", "ab"), Refused),
        ("a length with a fraction", post("Content-Length: 2.0\r\n", "ab"), Refused),
        ("an empty length", post("Content-Length:\r\n", "ab"), Refused),
        ("a length over 64 bits", post("Content-Length: 18446744073709551618\r\n", "ab"), Refused),
        ("a length with a blank before the colon", post("Content-Length : 2\r\n", "ab"), Refused),
        ("a length, folded", post("Content-Length:\r\n 2\r\n", "ab"), Refused),
        (
            "two codings",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &chunked_hidden),
            Refused,
        ),
        (
            "a coding twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunked_hidden),
            Refused,
        ),
        ("a coding that looks like one", post("Transfer-Encoding: xchunked\r\n", &chunked_hidden), Refused),
        ("a coding with a blank before the colon", post("Transfer-Encoding : chunked\r\n", &chunked_hidden), Refused),
        ("a coding with a control byte", post("Transfer-Encoding: chunked\u{b}\r\n", &chunked_hidden), Refused),
        ("a coding in quotes", post("Transfer-Encoding: \"chunked\"\r\n", &chunked_hidden), Refused),
        ("a coding with a parameter", post("Transfer-Encoding: chunked;q=1\r\n", &chunked_hidden), Refused),
        ("a coding, folded", post("Transfer-Encoding:\r\n chunked\r\n", &chunked_hidden), Refused),
        ("a coding in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", "2\r\nab\r\n0\r\n\r\n"), As("ab")),
        ("a coding behind a tab", post("Transfer-Encoding:\tchunked\r\n", "2\r\nab\r\n0\r\n\r\n"), As("ab")),
        (
            "a coding in HTTP/1.0",
            post("Transfer-Encoding: chunked\r\n", &chunked_hidden)
                .replace("HTTP/1.1\r\nHost: h\r\nA", "HTTP/1.0\r\nHost: h\r\nA"),
            Refused,
        ),
    ])
    .await;
}

#[tokio::test]
async fn chunks_are_read_in_one_way() {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    check(&[
        ("an extension", chunked("2;name=value\r\nab\r\n0\r\n\r\n"), As("ab")),
        ("leading zeros", chunked("0002\r\nab\r\n0\r\n\r\n"), As("ab")),
        ("a size over 64 bits", chunked("10000000000000002\r\nab\r\n0\r\n\r\n"), Refused),
        ("a size with a sign", chunked("+2\r\nab\r\n0\r\n\r\n"), Refused),
        ("a size with a prefix", chunked("0x2\r\nab\r\n0\r\n\r\n"), Refused),
        ("no size", chunked("\r\nab\r\n0\r\n\r\n"), Refused),
        ("more bytes than the size says", chunked("2\r\nabcd\r\n0\r\n\r\n"), Refused),
        ("a line feed inside an extension", chunked(&format!("2;a\nb\r\nab\r\n0\r\n\r\n{HIDDEN}")), Refused),
        ("a line feed for an end of line", chunked("2\nab\n0\n\n"), Refused),
        ("an endless extension", chunked(&format!("2;{}", "x".repeat(100_000))), Refused),
    ])
    .await;
}

#[tokio::test]
async fn heads_are_read_in_one_way() {
    let long = "a".repeat(100_000);
    let line = |line: &str| format!("{line}\r\nHost: h\r\n{KEY}\r\nContent-Length: 2\r\n\r\nab");
    check(&[
        ("a bare carriage return in a value", post("X: a\rContent-Length: 36\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("a zero byte in a value", post("X: a\0b\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("a zero byte in a name", post("X\0: a\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("a delete byte in a name", post("X\u{7f}: a\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("an empty name", post(": a\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("a folded value", post("X: a\r\n b\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("two hosts", post("Host: other\r\nContent-Length: 2\r\n", "ab"), Refused),
        ("a whole URI that names another host", line(&format!("POST http://other{PATH} HTTP/1.1")), As("ab")),
        ("an authority alone", line("CONNECT h:80 HTTP/1.1"), Refused),
        ("an asterisk", line("OPTIONS * HTTP/1.1"), Refused),
        ("two blanks", line(&format!("POST  {PATH} HTTP/1.1")), Refused),
        ("a tab", line(&format!("POST\t{PATH}\tHTTP/1.1")), Refused),
        ("an unknown version", line(&format!("POST {PATH} HTTP/1.2")), Refused),
        ("no version", line(&format!("POST {PATH}")), Refused),
        ("a very long method", line(&format!("{long} {PATH} HTTP/1.1")), Refused),
        ("a very long path", line(&format!("POST {PATH}?{long} HTTP/1.1")), Refused),
        ("a very long name", post(&format!("{long}: a\r\nContent-Length: 2\r\n"), "ab"), Refused),
        ("an encoded slash", line("POST /api/v1/endpoint/iris%2fscore HTTP/1.1"), Refused),
        (
            "an encoded slash behind the endpoint",
            line("POST /api/v1/endpoint/iris/a%2f..%2f..%2fhidden HTTP/1.1"),
            Refused,
        ),
        ("dot segments", line("POST /api/v1/endpoint/iris/../../hidden HTTP/1.1"), Refused),
        ("encoded dot segments", line("POST /api/v1/endpoint/iris/%2e%2e/hidden HTTP/1.1"), Refused),
        ("a backslash", line("POST /api/v1/endpoint/iris/..\\hidden HTTP/1.1"), Refused),
        ("an encoded zero byte", line("POST /api/v1/endpoint/iris/score%00 HTTP/1.1"), Refused),
        ("an encoded line end", line("POST /api/v1/endpoint/iris/x%0d%0ahidden HTTP/1.1"), Refused),
    ])
    .await;
}

#[tokio::test]
async fn what_follows_a_refused_request_is_never_read_as_one() {
    let (replica, router) = start().await;
    let follow = post("Content-Length: 2\r\n", "ab");
    for refused in [
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        post("Transfer-Encoding: gzip\r\n", "hello"),
        post("Transfer-Encoding: chunked\r\n", "zz\r\n"),
        format!("POST {PATH}/../x HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 99999\r\n\r\n"),
    ] {
        let mut client = router.client().await;
        client.try_send(format!("{refused}{follow}")).await;
        assert_eq!(client.answer().await.status, 400, "{refused}");
        assert!(client.is_closed().await, "{refused}");
    }
    assert!(replica.seen().iter().all(|seen| seen.body != b"ab"), "{:?}", replica.seen());
    router.drain().await;
}

#[tokio::test]
async fn trailers_that_would_change_the_message_do_not_reach_a_replica() {
    let (replica, router) = start().await;
    let mut client = router.client().await;
    let headers = "Transfer-Encoding: chunked\r\nTrailer: Content-Length, Host, X-Sum\r\n";
    let body = "2\r\nab\r\n0\r\nContent-Length: 99\r\nHost: other\r\nX-Sum: 1\r\n\r\n";
    assert_eq!(client.ask(post(headers, body)).await.status, 200);
    let seen = replica.wait_for(1).await.remove(0);
    let trailers = seen.trailers.to_ascii_lowercase();
    assert!(
        trailers.contains("x-sum") && !trailers.contains("content-length") && !trailers.contains("host"),
        "{trailers}"
    );
    router.drain().await;
}

#[tokio::test]
async fn a_malformed_answer_of_a_replica_never_reaches_a_client() {
    for (what, bytes) in [
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        ("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello".to_vec()),
        ("a folded header", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        ("a zero byte", b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("another coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello".to_vec()),
        ("a status that is none", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        ("a head without an end", [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 400_000]].concat()),
    ] {
        let replica = ScriptedReplica::start(move |_| vec![Step::Send(bytes.clone()), Step::Close]).await;
        let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
        let mut client = router.client().await;
        let got = client.ask(post("Content-Length: 2\r\n", "ab")).await;
        assert_eq!((got.status, got.error("code").as_str()), (502, "ReplicaClosedConnection"), "{what}: {}", got.head);
        assert!(!got.head.contains("X: a"), "{what}");
        drop(client);
        router.drain().await;
    }
}

#[tokio::test]
async fn a_second_answer_that_nobody_asked_for_is_nobodys() {
    let replica = ScriptedReplica::start(|seen| {
        let extra = answer(200, &[], "for somebody else");
        if seen.body == b"ab" {
            vec![Step::Send([answer(200, &[], "fine"), extra].concat())]
        } else {
            vec![Step::Send(answer(200, &[], "second"))]
        }
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(post("Content-Length: 2\r\n", "ab")).await.text(), "fine");
    for _ in 0..3 {
        assert_eq!(client.ask(post("Content-Length: 2\r\n", "cd")).await.text(), "second");
    }
    router.drain().await;
}
