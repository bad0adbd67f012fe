//! Connections as the pool and an exchange see them, on loopback.

use std::collections::HashSet;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Uri};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::data::gather::PACKET;
use crate::data::pool::Pool;
use crate::data::upload::UploadBody;

const SERIAL: u64 = 7;

/// A connection, and the replica's end of it.
async fn pair() -> (Box<Upstream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ours = TcpStream::connect(address).await.unwrap();
    let theirs = listener.accept().await.unwrap().0;
    (Upstream::new(ReplicaSocket::Plain(ours), address, None, Duration::ZERO), theirs)
}

fn request(method: Method) -> (RequestHead, HeaderMap) {
    (RequestHead::new(&method, &Uri::from_static("/score")), HeaderMap::new())
}

async fn poll(call: &mut Call) -> Result<(head::Head, Bytes), Cause> {
    poll_fn(|cx| call.poll(cx)).await
}

/// Asks, and reads the whole answer, which the replica gives in these pieces. With the connection, if it is fit.
async fn ask(upstream: Box<Upstream>, theirs: &mut TcpStream, pieces: &[&[u8]]) -> (Vec<u8>, Option<Box<Upstream>>) {
    let mut call = Call::new(upstream, request(Method::GET), UploadBody::empty(), 4096);
    let answering = async {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            theirs.read_buf(&mut request).await.unwrap();
        }
        for piece in pieces {
            theirs.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        let (head, start) = poll(&mut call).await.unwrap();
        let mut body = call.answer(head, start).body;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        assert!(body.is_whole());
        (bytes, body.take_upstream())
    };
    tokio::join!(answering, reading).1
}

/// Bytes cut at these places.
pub(super) fn cut<'a>(bytes: &'a [u8], cuts: &[proptest::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

#[tokio::test]
async fn only_a_connection_that_is_open_and_quiet_is_taken_from_the_pool_or_left_in_it() {
    for (what, is_fit) in [("nothing", true), ("bytes", false), ("the end", false)] {
        let pool = Pool::new(Duration::from_secs(60), 8);
        let mut peers = Vec::new();
        for _ in 0..2 {
            let (upstream, mut theirs) = pair().await;
            let socket = upstream.address;
            match what {
                "bytes" => theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap(),
                "the end" => theirs.shutdown().await.unwrap(),
                _ => {}
            }
            if !is_fit {
                upstream.socket.tcp().readable().await.unwrap();
            }
            pool.park(SERIAL, upstream, Instant::now());
            let found = pool.take(SERIAL, socket, &Wire::Plain, Instant::now());
            assert_eq!(found.as_ref().map(|upstream| upstream.reused), is_fit.then_some(true), "{what}");
            peers.push(theirs);
        }
        // The sweep drops it without being asked.
        let (upstream, mut theirs) = pair().await;
        let address = upstream.address;
        pool.park(SERIAL, upstream, Instant::now());
        if !is_fit {
            theirs.write_all(b"x").await.unwrap();
            let mut turns = 0;
            while pool.count() > 0 && turns < 100_000 {
                tokio::task::yield_now().await;
                pool.sweep(Instant::now());
                turns += 1;
            }
        }
        pool.sweep(Instant::now());
        assert_eq!(pool.take(SERIAL, address, &Wire::Plain, Instant::now()).is_some(), is_fit, "{what}");
    }
}

#[tokio::test]
async fn the_kernel_watches_over_a_connection_from_its_first_rest_on() {
    let (mut upstream, _theirs) = pair().await;
    upstream.silence = Silence::new(Duration::from_secs(4));
    let is_watched = |upstream: &Upstream| socket2::SockRef::from(upstream.socket.tcp()).keepalive().unwrap();
    let pool = Pool::new(Duration::from_secs(60), 8);
    assert!(!is_watched(&upstream) && upstream.unwatched_for().is_some());
    let address = upstream.address;
    pool.park(SERIAL, upstream, Instant::now());
    let upstream = pool.take(SERIAL, address, &Wire::Plain, Instant::now()).unwrap();
    assert!(is_watched(&upstream) && upstream.unwatched_for().is_none());
}

#[tokio::test]
async fn a_parked_connection_goes_to_the_first_that_waits_and_is_not_lost_with_one_that_left() {
    let pool = Pool::new(Duration::from_secs(60), 8);
    let (gone, first, mut second) = (pool.wait(SERIAL), pool.wait(SERIAL), pool.wait(SERIAL));
    drop(gone);
    pool.sweep(Instant::now());
    let (upstream, _theirs) = pair().await;
    let address = upstream.address;
    pool.park(SERIAL, upstream, Instant::now());
    assert_eq!(pool.count(), 0);
    let turn = poll_fn(|cx| Poll::Ready(Pin::new(&mut second).poll(cx).is_pending()));
    assert!(turn.await, "the first one comes first");
    // It went another way in the moment when it was given the connection.
    drop(first);
    let given = tokio::time::timeout(Duration::from_secs(20), second).await;
    let upstream = given.expect("it goes to the next one").unwrap();
    let parked = Instant::now();
    pool.park(SERIAL, upstream, parked);
    let take = |since| pool.take_new(SERIAL, address, &Wire::Plain, since).is_some();
    assert!(!take(parked + Duration::from_nanos(1)) && take(parked) && !take(parked));
}

#[tokio::test]
async fn a_connection_leads_to_one_address_by_one_kind_of_wire() {
    let (upstream, _theirs) = pair().await;
    let (address, other) = (upstream.address, SocketAddr::from(([127, 0, 0, 1], 1)));
    assert!(upstream.leads_to(address, &Wire::Plain) && !upstream.leads_to(other, &Wire::Plain));
    assert!(!upstream.leads_to(address, &Wire::Closed("no".into())));
}

#[tokio::test]
async fn answers_of_every_framing_are_read_whole_and_only_a_clean_end_keeps_the_connection() {
    let large = vec![b'x'; 3 << 20];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", large.len());
    let head = head.as_bytes();
    for (what, pieces, body, is_kept) in [
        ("a length", &[&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..]][..], &b"hello"[..], true),
        ("in pieces", &[b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r\nhel", b"lo"], b"hello", true),
        (
            "chunks",
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n", b"0\r\n\r\n"],
            b"he",
            true,
        ),
        ("no body", &[b"HTTP/1.1 204 No Content\r\n\r\n"], b"", true),
        ("closing", &[b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"], b"hi", false),
        ("more than a length", &[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!"], b"hi", false),
        (
            "interim",
            &[b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"],
            b"hi",
            true,
        ),
        ("a large one", &[head, &large], &large, true),
    ] {
        let (upstream, mut theirs) = pair().await;
        let (bytes, upstream) = ask(upstream, &mut theirs, pieces).await;
        assert!(bytes == body, "{what}: {} bytes", bytes.len());
        assert_eq!(upstream.is_some(), is_kept, "{what}");
    }
}

#[tokio::test]
async fn a_piece_that_was_read_holds_less_than_four_times_its_memory() {
    const SIZE: usize = 64 << 10;
    let (mut upstream, mut theirs) = pair().await;
    for (sent, held) in [(SIZE / 4 - 1, SIZE / 4 - 1), (SIZE / 4, SIZE)] {
        theirs.write_all(&vec![b'x'; sent]).await.unwrap();
        // All of it has come before it is read: one write to a socket with room is one piece on loopback.
        upstream.socket.tcp().readable().await.unwrap();
        let read = poll_fn(|cx| upstream.poll_read(SIZE, false, cx)).await.unwrap();
        assert_eq!(read.len(), sent);
        assert_eq!(read.try_into_mut().unwrap().capacity(), held);
    }
    assert!(size_of::<Upstream>() <= 152, "{}", size_of::<Upstream>());
}

#[tokio::test]
async fn what_is_known_of_a_request_that_failed() {
    // The replica had read it, and closed: it was sent. On a connection that was used before it may be stale.
    for reused in [false, true] {
        let (mut upstream, mut theirs) = pair().await;
        upstream.reused = reused;
        let mut call = Call::new(upstream, request(Method::GET), UploadBody::empty(), 4096);
        let closing = async {
            theirs.read_u8().await.unwrap();
            drop(theirs);
        };
        let (_, result) = tokio::join!(closing, poll(&mut call));
        let broken = call.broken(result.unwrap_err());
        assert_eq!((broken.is_unsent, broken.is_stale), (false, reused));
        let mut text = Vec::new();
        broken.head.0.write(Some(0), &mut text);
        assert_eq!(text, b"GET /score HTTP/1.1\r\n\r\n");
    }
    // Nothing could be written.
    let (upstream, theirs) = pair().await;
    socket2::SockRef::from(upstream.socket.tcp()).shutdown(std::net::Shutdown::Write).unwrap();
    let mut call = Call::new(upstream, request(Method::GET), UploadBody::empty(), 4096);
    assert!(call.is_unsent());
    let cause = poll(&mut call).await.unwrap_err();
    assert!(matches!(cause, Cause::Connection(_)) && call.broken(cause).is_unsent);
    drop(theirs);
    // The answer had begun: it is not stale.
    let (mut upstream, mut theirs) = pair().await;
    upstream.reused = true;
    let mut call = Call::new(upstream, request(Method::GET), UploadBody::empty(), 4096);
    theirs.write_all(b"HTTP/1.1 2").await.unwrap();
    theirs.shutdown().await.unwrap();
    let cause = poll(&mut call).await.unwrap_err();
    assert!(matches!(cause, Cause::Closed) && !call.broken(cause).is_stale);
}

#[tokio::test]
async fn a_request_goes_out_with_its_body_in_one_write_and_with_the_length_that_this_has() {
    for length in ["5", "4", "6"] {
        let (upstream, mut theirs) = pair().await;
        let mut head = request(Method::POST);
        head.0.add_all(&HeaderMap::from_iter([(CONTENT_LENGTH, length.parse().unwrap())]));
        let mut call = Call::new(upstream, head, UploadBody::whole(Bytes::from_static(b"hello")), 4096);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(call.poll(&mut cx).is_pending());
        let mut got = vec![0; 4096];
        let n = theirs.read(&mut got).await.unwrap();
        assert_eq!(&got[..n], b"POST /score HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello");
    }
}

#[tokio::test]
async fn what_is_read_grows_with_what_was_taken() {
    let (upstream, _theirs) = pair().await;
    let call = Call::new(upstream, request(Method::GET), UploadBody::empty(), 4096);
    let (mut reader, mut headers) = (head::HeadReader::default(), Headers::default());
    let expected = head::Expected { is_bodiless: false, bytes_max: 4096, as_lines: false };
    let bytes = Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n");
    let (head, rest) = reader.push(bytes, expected, &mut headers).unwrap().unwrap();
    let mut body = call.answer(head, rest).body;
    let sizes =
        [0, 1 << 10, 100_000, 2 * PACKET as u64, 1 << 20, 1 << 30].map(|passed| body.read_size_after(passed, SMALL));
    assert_eq!(sizes, [SMALL, SMALL, PACKET, 2 * PACKET, 2 * PACKET, 2 * PACKET]);
    // Of a stream of events each comes alone, however many there were.
    assert_eq!([0, 100_000, 1 << 30].map(|passed| body.read_size_after(passed, 50)), [SMALL; 3]);
}

/// An early answer whose head alone is there, while most of the request is still to be sent.
async fn early(head: &[u8]) -> (ReplicaBody, TcpStream) {
    let (upstream, mut theirs) = pair().await;
    let body = UploadBody::whole(vec![b'r'; 24 << 20].into());
    let mut call = Call::new(upstream, request(Method::POST), body, 4096);
    theirs.write_all(head).await.unwrap();
    let (head, start) = poll(&mut call).await.unwrap();
    (call.answer(head, start).body, theirs)
}

/// Until the task that sends the rest of the request has been told that the connection is gone.
async fn until_cut(body: &ReplicaBody) {
    let cut = async {
        while !body.is_known_cut() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut).await.unwrap();
}

#[tokio::test]
async fn an_early_answer_is_whole_though_the_rest_of_the_request_found_the_connection_gone() {
    let (mut body, mut theirs) = early(b"HTTP/1.1 413 Too Much\r\nContent-Length: 8\r\n\r\n").await;
    theirs.write_all(b"too much").await.unwrap();
    drop(theirs);
    until_cut(&body).await;
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, "too much");
    assert!(body.is_whole() && body.take_upstream().is_none());
}

#[tokio::test]
async fn an_early_answer_that_ends_with_its_connection_is_broken_where_that_was_reset() {
    let (mut body, theirs) = early(b"HTTP/1.1 200 OK\r\n\r\npartial").await;
    drop(theirs);
    until_cut(&body).await;
    let mut got = Vec::new();
    let end = loop {
        match body.frame().await {
            Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
            end => break end,
        }
    };
    assert_eq!(got, b"partial");
    assert!(matches!(end, Some(Err(_))) && !body.is_whole());
}

#[tokio::test]
async fn a_request_that_a_replica_never_reads_is_let_go_of_with_its_early_answer() {
    let (mut body, mut theirs) = early(b"HTTP/1.1 400 No\r\nContent-Length: 5\r\n\r\n").await;
    theirs.write_all(b"hello").await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    assert!(body.is_whole() && body.take_upstream().is_none());
    drop(body);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), theirs.read_to_end(&mut rest));
    // In order or by a reset, but it ends.
    drop(ended.await.unwrap());
    assert!(rest.len() < 24 << 20);
}

#[tokio::test]
async fn no_other_protocol_begins_on_a_connection_on_which_a_request_is_not_out() {
    let (body, _theirs) = early(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert!(body.into_socket().is_none());
}

#[test]
fn a_block_is_what_was_read_whatever_its_size() {
    let all: Vec<u8> = (0..=255).chain(0..=255).collect();
    for size in [0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 512] {
        let mut block = block(&all[..size]);
        assert_eq!(block, all[..size]);
        let front = block.split_to(size / 2);
        assert_eq!((&front[..], &block[..]), (&all[..size / 2], &all[size / 2..size]));
    }
}

#[test]
fn blocks_of_a_stream_use_the_same_memory_again_but_never_while_somebody_has_it() {
    let mut room = BytesMut::new();
    let blocks: Vec<Bytes> = (0..9).map(|byte| block_in(&mut room, &[byte; 100])).collect();
    for (byte, block) in (0..9).zip(&blocks) {
        assert_eq!(block[..], [byte; 100]);
    }
    drop(blocks);
    let places: HashSet<_> = (0..99).map(|byte| block_in(&mut room, &[byte; 100]).as_ptr()).collect();
    assert!(places.len() <= 2, "{} places", places.len());
    assert_eq!(block_in(&mut room, &[7; 257])[..], [7; 257]);
    assert!(block_in(&mut room, &[]).is_empty());
}
