//! What a client is credited with where hyper is told of less.

use std::time::Instant;

use http::HeaderName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::core::limits::Limits;
use crate::core::vitals::Vitals;
use crate::data::upstream::Text;
use crate::data::worker::{Phase, Shared, Worker};
use crate::ops::access_log::{AccessLog, LogTarget};

#[tokio::test]
async fn a_write_that_takes_nothing_of_lines_gives_no_patience_back() {
    let directory = tempfile::tempdir().unwrap();
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    let log = AccessLog::start(&LogTarget::File(directory.path().join("log")), 1, 1 << 20, vitals.clone()).unwrap();
    let (_sender, phase) = watch::channel(Phase::Running);
    // Any rate will do, but something must be taken.
    let limits = Limits { answer_rate_min: 0, ..Limits::default() };
    let shared = Shared::new(Arc::default(), limits, vitals, phase);
    let worker = Arc::new(Worker::new(0, shared, log.worker(0), 1));
    let link = Arc::new(Link::new(worker, ([127, 0, 0, 1], 1).into()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let transport = Transport::Plain(listener.accept().await.unwrap().0);
    let mut socket = Socket::new(transport, link.clone());

    let mut text = Text::default();
    text.add(&HeaderName::from_static("x-fill"), &vec![b'f'; 64 << 20]);
    link.insert.put(text);
    let (mut cx, mut head) = (Context::from_waker(Waker::noop()), &b"HTTP/1.1 200 OK\r\n\r\n"[..]);
    let mut write = || {
        let written = Pin::new(&mut socket).poll_write_vectored(&mut cx, &[IoSlice::new(head)]);
        head = &head[bytes_of(&written)..];
        written
    };
    while write().is_ready() {}
    let until = link.waits_until().expect("a write waits");
    let since = Instant::now();
    while since.elapsed() < Duration::from_micros(10) {
        std::hint::spin_loop();
    }
    assert!(write().is_pending());
    assert_eq!(link.waits_until(), Some(until));
}
