//! One-slot replicas: each serves one request at a time and closes the connection after its answer, as the stock
//! model server does.
//!
//! Each replica is a thread with a listener and no other state. A second connection waits in the backlog, and a
//! connection that stays silent blocks the replica, so a front-end that opens connections ahead of need is found out.
//! Threads and not tasks, because a thread's sleep is exact to some 60 µs and a runtime's timer to a millisecond.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Request header: how long to serve, in µs. Answer header: how long it really took.
pub const SERVICE_HEADER: &str = "x-service-us";

/// The longest service time that a replica grants; what is asked for above it is cut.
pub const SERVICE_MAX: Duration = Duration::from_secs(2);

/// How long a connection may stay silent before the replica gives it up.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// A running set of replicas. Dropping it ends them.
pub struct Replicas {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    silent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Replicas {
    /// Starts `count` of them on ports that the system chooses.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let silent = Arc::new(AtomicU64::new(0));
        let mut replicas = Self { addresses: Vec::new(), stop, silent, threads: Vec::new() };
        for _ in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            replicas.addresses.push(listener.local_addr()?);
            let (stop, silent) = (replicas.stop.clone(), replicas.silent.clone());
            replicas.threads.push(thread::spawn(move || serve(&listener, &stop, &silent)));
        }
        Ok(replicas)
    }

    /// Where they listen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections that came without a request, and so kept a replica from working.
    pub fn silent_connections(&self) -> u64 {
        self.silent.load(Ordering::Relaxed)
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for address in &self.addresses {
            // Wakes the accept; if it fails, the thread ends with the process.
            drop(TcpStream::connect_timeout(address, SILENCE_MAX));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool, silent: &AtomicU64) {
    while let Ok((stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if answer(&stream).is_err() {
            silent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads one request, works, answers, closes.
fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let (service, length) = read_head(&mut reader)?;
    io::copy(&mut reader.take(length), &mut io::sink())?;

    let started = Instant::now();
    thread::sleep(service);
    let body = br#"{"predictions":[0]}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{SERVICE_HEADER}: {}\r\n\r\n",
        body.len(),
        started.elapsed().as_micros()
    );
    let mut writer: &TcpStream = stream;
    writer.write_all(&[head.as_bytes(), body].concat())
}

/// The service time that is asked for, and the length of the body.
fn read_head(reader: &mut impl BufRead) -> io::Result<(Duration, u64)> {
    let (mut service, mut length) = (Duration::ZERO, 0);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok((service.min(SERVICE_MAX), length));
        }
        let Some((name, value)) = text.split_once(':') else { continue };
        let number = || value.trim().parse::<u64>().map_err(io::Error::other);
        match name.to_ascii_lowercase().as_str() {
            SERVICE_HEADER => service = Duration::from_micros(number()?),
            "content-length" => length = number()?,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, service_us: u64) -> (String, Duration) {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "POST /score HTTP/1.1\r\n{SERVICE_HEADER}: {service_us}\r\ncontent-length: 2\r\n\r\n{{}}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer, started.elapsed())
    }

    #[test]
    fn a_replica_answers_with_its_service_time_and_closes() {
        let replicas = Replicas::start(1).unwrap();
        let (answer, took) = ask(replicas.addresses()[0], 5000);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let head = answer.to_ascii_lowercase();
        let served: u64 = head.split_once("x-service-us: ").unwrap().1.split('\r').next().unwrap().parse().unwrap();
        assert!(served >= 5000 && Duration::from_micros(served) <= took, "{served} µs of {took:?}");
        assert_eq!(replicas.silent_connections(), 0);
    }

    #[test]
    fn a_replica_serves_one_request_at_a_time() {
        let replicas = Replicas::start(1).unwrap();
        let address = replicas.addresses()[0];
        let started = Instant::now();
        let both: Vec<_> = (0..2).map(|_| thread::spawn(move || ask(address, 50_000))).collect();
        for one in both {
            assert!(one.join().unwrap().0.contains("200 OK"));
        }
        assert!(started.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn a_connection_without_a_request_is_counted() {
        let replicas = Replicas::start(1).unwrap();
        drop(TcpStream::connect(replicas.addresses()[0]).unwrap());
        assert!(ask(replicas.addresses()[0], 0).0.contains("200 OK"));
        assert_eq!(replicas.silent_connections(), 1);
    }
}
