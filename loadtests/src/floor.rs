//! The floor: a forwarder of bytes that looks at none of them. What it costs is what the system calls of any proxy cost.
//!
//! One thread, one event loop, one upstream connection for each client connection. Limits: as many connections as
//! [`PAIRS_MAX`]; one chunk on its way in each direction.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Client connections at a time.
const PAIRS_MAX: usize = 20_000;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

const LISTENER: Token = Token(0);

/// How it is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where it takes connections.
    #[arg(long)]
    listen: SocketAddr,
    /// Where it passes them on to.
    #[arg(long)]
    to: SocketAddr,
}

/// One direction: what was read and could not be written yet.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    over: bool,
}

/// Two sockets; the first is the client's.
struct Pair {
    sockets: [TcpStream; 2],
    held: [Held; 2],
}

/// Runs until it is ended from outside.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(arguments.listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut pairs: HashMap<usize, Pair> = HashMap::new();
    let mut free: Vec<usize> = (1..=PAIRS_MAX).rev().collect();
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; CHUNK];
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let Some(id) = free.pop() else { continue };
                    match Pair::open(client, arguments.to, id, &poll) {
                        Ok(pair) => drop(pairs.insert(id, pair)),
                        Err(_) => free.push(id),
                    }
                }
                continue;
            }
            let id = event.token().0 / 2;
            let Some(pair) = pairs.get_mut(&id) else { continue };
            // Level is edge here: each event is followed until nothing moves any more.
            if pair.pass(event.token().0 % 2, event.is_readable(), &mut chunk).is_err() {
                pairs.remove(&id);
                free.push(id);
            }
        }
    }
}

impl Pair {
    fn open(client: TcpStream, to: SocketAddr, id: usize, poll: &Poll) -> io::Result<Self> {
        let mut sockets = [client, TcpStream::connect(to)?];
        for (side, socket) in sockets.iter_mut().enumerate() {
            let _ = socket.set_nodelay(true);
            poll.registry().register(socket, Token(2 * id + side), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(Self { sockets, held: Default::default() })
    }

    /// Passes on what can be passed after an event on this side. An error ends the pair.
    fn pass(&mut self, side: usize, readable: bool, chunk: &mut [u8]) -> io::Result<()> {
        // What this side could not take before, it may now.
        self.carry(1 - side, chunk, false)?;
        if readable { self.carry(side, chunk, true) } else { Ok(()) }
    }

    /// From this side to the other: first what is held, then, with `fresh` or after a hold, what can be read.
    fn carry(&mut self, from: usize, chunk: &mut [u8], fresh: bool) -> io::Result<()> {
        let [first, second] = &mut self.sockets;
        let (source, sink) = if from == 0 { (first, second) } else { (second, first) };
        let [towards, back] = &mut self.held;
        let held = if from == 0 { towards } else { back };
        let mut may_read = fresh;
        while !held.bytes.is_empty() {
            match sink.write(&held.bytes) {
                Ok(written) => drop(held.bytes.drain(..written)),
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            may_read = true;
        }
        while may_read && !held.over {
            let read = match source.read(chunk) {
                Ok(0) => {
                    held.over = true;
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Ok(read) => read,
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut rest = chunk.get(..read).unwrap_or_default();
            while !rest.is_empty() {
                match sink.write(rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(error) if is_not_yet(&error) => {
                        held.bytes.extend_from_slice(rest);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
            // A short read emptied the socket: another one would only say so.
            if read < chunk.len() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
