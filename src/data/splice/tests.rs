//! One pipe at a time; what the router makes of them is tested over whole answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::time::Instant;

use hyper::rt::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::data::link::Link;
use crate::data::socket::Socket;
use crate::data::tls::Transport;
use crate::data::worker::{Shared, Worker};
use crate::ops::access_log::{AccessLog, LogTarget};

/// Two ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

fn pipes(max: usize) -> (Pipes, Arc<Vitals>) {
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    (Pipes::new(max, vitals.clone()), vitals)
}

async fn fill(passage: &Passage, pipes: &Pipes, socket: &TcpStream) -> Option<Bytes> {
    poll_fn(|cx| passage.poll_fill(pipes, socket, u64::MAX, cx)).await.unwrap()
}

async fn drain(passage: &Passage, pipes: &Pipes, socket: &TcpStream, most: usize) -> io::Result<usize> {
    poll_fn(|cx| passage.poll_drain(pipes, socket, most, cx)).await
}

#[tokio::test]
async fn what_goes_in_comes_out_and_what_stands_in_is_known() {
    let ((mut replica, upstream), (client, mut reader)) = (pair().await, pair().await);
    let ((pipes, vitals), passage) = (pipes(1), Passage::default());
    replica.write_all(b"0123456789").await.unwrap();
    let stand_in = fill(&passage, &pipes, &upstream).await.unwrap();
    assert!(stand_in.len() == 10 && is_stand_in(&stand_in) && is_stand_in(&stand_in[9..]));
    assert!(!is_stand_in(&stand_in[10..]) && !is_stand_in(b"0123456789") && !is_stand_in(&[0; 10]));
    // Whoever asks again first gets nothing, and copies.
    assert_eq!(fill(&passage, &pipes, &upstream).await, None);
    assert_eq!(drain(&passage, &pipes, &client, 4).await.unwrap(), 4);
    assert_eq!(fill(&passage, &pipes, &upstream).await, None);
    assert_eq!(drain(&passage, &pipes, &client, 6).await.unwrap(), 6);
    let mut got = [0; 10];
    reader.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"0123456789");
    assert_eq!((vitals.splice.bytes.read(), vitals.splice.missing.read()), (10, 0));
    drop(replica);
    assert_eq!(fill(&passage, &pipes, &upstream).await, Some(Bytes::new()), "the end of the connection");
    assert_eq!(vitals.splice.pipes.load(Ordering::Relaxed), 1, "the pipe is there for the next");
}

#[tokio::test]
async fn nothing_is_sent_for_which_nothing_is_in_the_pipe() {
    let ((mut replica, upstream), (client, reader)) = (pair().await, pair().await);
    let ((pipes, _), passage) = (pipes(1), Passage::default());
    assert!(drain(&passage, &pipes, &client, 1).await.is_err());
    replica.write_all(b"01234").await.unwrap();
    fill(&passage, &pipes, &upstream).await.unwrap();
    assert!(drain(&passage, &pipes, &client, 6).await.is_err());
    assert_eq!(reader.try_read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_clients_socket_sends_what_is_in_the_pipe_and_never_what_stands_in() {
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    let log = AccessLog::start(&LogTarget::File("/dev/null".into()), 1, 1 << 20, vitals.clone()).unwrap();
    let (_, shared) = Shared::of_nothing(vitals);
    let worker = Arc::new(Worker::new(0, shared, log.worker(0), 1));
    let ((mut replica, upstream), (client, mut reader)) = (pair().await, pair().await);
    let link = Arc::new(Link::new(worker.clone(), reader.local_addr().unwrap()));
    let mut socket = Socket::new(Transport::Plain(client), link.clone());
    for is_one_by_one in [true, false] {
        replica.write_all(b"01234").await.unwrap();
        let stand_in = fill(link.passage().unwrap(), &worker.pipes, &upstream).await.unwrap();
        if is_one_by_one {
            assert_eq!(poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, &stand_in)).await.unwrap(), 5);
        } else {
            // What goes before goes first, by itself.
            let both = [IoSlice::new(b"head:"), IoSlice::new(&stand_in)];
            let first = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &both)).await;
            let second = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &both[1..])).await;
            assert_eq!((first.unwrap(), second.unwrap()), (5, 5));
        }
        // Once more, and nothing is there for it.
        assert!(poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, &stand_in)).await.is_err());
        let again = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &[IoSlice::new(&stand_in)])).await;
        assert!(again.is_err());
    }
    drop(socket);
    let mut got = String::new();
    reader.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "01234head:01234");
}

#[tokio::test]
async fn a_pipe_with_something_in_it_goes_with_its_connection() {
    let (mut replica, mut upstream) = pair().await;
    let (pipes, vitals) = pipes(1);
    let open = || vitals.splice.pipes.load(Ordering::Relaxed);
    for round in 1..4 {
        replica.write_all(b"left").await.unwrap();
        let passage = Passage::default();
        assert!(fill(&passage, &pipes, &upstream).await.is_some());
        assert_eq!(open(), 1);
        // There is one, and somebody has it.
        replica.write_all(b"more").await.unwrap();
        assert_eq!(fill(&Passage::default(), &pipes, &upstream).await, None);
        assert_eq!(vitals.splice.missing.read(), round);
        drop(passage);
        assert_eq!((open(), pipes.idle.lock().pipes.len()), (0, 0));
        let mut rest = [0; 4];
        upstream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"more");
    }
}

#[tokio::test]
async fn pipes_that_nobody_needs_are_closed() {
    let (pipes, vitals) = pipes(100);
    let open = || vitals.splice.pipes.load(Ordering::Relaxed);
    let put = |taken: Vec<Pipe>| taken.into_iter().for_each(|pipe| pipes.put(pipe));
    put((0..20).map(|_| pipes.take().unwrap()).collect());
    pipes.sweep();
    assert_eq!(open(), 20, "they were needed a moment ago");
    // Three at a time since then.
    (0..5).for_each(|_| put((0..3).map(|_| pipes.take().unwrap()).collect()));
    pipes.sweep();
    assert_eq!(open(), 3);
    pipes.sweep();
    assert_eq!(open(), 0, "nobody needed one");
}

#[tokio::test]
async fn there_are_none_where_descriptors_are_short_or_none_are_to_be() {
    let (short, vitals) = pipes(100);
    vitals.descriptors.set_limit(1);
    assert!(short.take().is_none());
    assert_eq!((vitals.splice.pipes.load(Ordering::Relaxed), vitals.splice.missing.read()), (0, 1));
    // Until the next sweep nobody tries again.
    vitals.descriptors.set_limit(0);
    assert!(short.take().is_none());
    short.sweep();
    assert!(short.take().is_some());
    let ((mut replica, upstream), (off, vitals)) = (pair().await, pipes(0));
    replica.write_all(b"bytes").await.unwrap();
    assert_eq!(fill(&Passage::default(), &off, &upstream).await, None);
    assert_eq!(vitals.splice.missing.read(), 0, "nobody wanted one");
}

#[test]
fn a_kernel_that_cannot_or_must_not_is_not_asked_again() {
    for (error, is_final) in [
        (io::ErrorKind::ConnectionReset, false),
        (io::ErrorKind::InvalidInput, true),
        (io::ErrorKind::PermissionDenied, true),
        (io::ErrorKind::Unsupported, true),
    ] {
        let (pipes, _) = pipes(1);
        pipes.judge(&error.into());
        assert_eq!(pipes.is_off(), is_final, "{error}");
    }
}
