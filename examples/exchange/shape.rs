//! The peers of an exchange, and the shapes that it can have.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use scorefront::ops::access_log::LogTarget;
use scorefront::testing::lone::LoneWorker;
use scorefront::testing::world::World;
use tokio::runtime::Runtime;
use tokio::task::yield_now;

/// What an exchange is like. The request and the answer are small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All connections stay open.
    KeepAlive,
    /// The replica closes after each answer, as the stock model server does.
    Closing,
    /// The client connects for each request, as azureml-core does.
    Fresh,
    /// One event of a stream of them, in place of an exchange.
    Event,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::KeepAlive, Self::Closing, Self::Fresh, Self::Event];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Closing => "closing",
            Self::Fresh => "fresh",
            Self::Event => "event",
        }
    }
}

/// As Python's `requests` sends it; 47 bytes of JSON.
const REQUEST: &str = "POST /api/v1/endpoint/iris/score HTTP/1.1\r\n\
    Host: models.example.com\r\n\
    User-Agent: python-requests/2.32.3\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept: */*\r\n\
    Connection: CONNECTION\r\n\
    Content-Type: application/json\r\n\
    Authorization: Bearer secret-1\r\n\
    Content-Length: 47\r\n\r\n\
    {\"data\": [[5.1, 3.5, 1.4, 0.2, 6.7, 3.1, 4.4]]}";
const REQUEST_END: &[u8] = b"4.4]]}";

const ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Server: gunicorn\r\n\
    Date: Sat, 28 Nov 2026 08:00:00 GMT\r\n\
    Connection: CONNECTION\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 36\r\n\
    x-ms-run-function-failed: False\r\n\r\n\
    {\"result\": [0, 1, 2, 0], \"ok\": true}";
const ANSWER_END: &[u8] = b"\"ok\": true}";

const STREAM: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Transfer-Encoding: chunked\r\n\r\n";
/// As language models send a token; 39 bytes.
const EVENT: &[u8] = b"27\r\ndata: {\"choices\": [{\"text\": \" the\"}]}\n\n\r\n";
const STREAM_END: &[u8] = b"0\r\n\r\n";

/// Endpoints beside the one that is asked.
const NEIGHBOURS: usize = 99;
/// Replicas of that one.
const REPLICAS: usize = 2;
/// Clients that ask at the same time, where what is looked at is memory: as many as the load tests have.
pub(crate) const CROWD: usize = 64;
/// Turns of the runtime after which an exchange is taken to hang.
const TURNS_MAX: usize = 1000;

/// A client, replicas, and the router between them.
pub(crate) struct Bench {
    runtime: Runtime,
    worker: LoneWorker,
    /// Where clients connect.
    listener: TcpListener,
    client: Option<TcpStream>,
    /// More clients, which ask all at once.
    crowd: Vec<TcpStream>,
    /// The router's end of a connection that it does not have yet.
    arrived: Option<TcpStream>,
    replicas: Vec<Replica>,
    request: Vec<u8>,
    answer: Vec<u8>,
    shape: Shape,
}

struct Replica {
    listener: TcpListener,
    connections: Vec<TcpStream>,
}

impl Bench {
    pub(crate) fn start(shape: Shape) -> Self {
        Self::with(shape, false)
    }

    /// One whose clients ask all at once, on connections that stay open.
    pub(crate) fn crowded() -> Self {
        let mut bench = Self::with(Shape::KeepAlive, true);
        for _ in 0..CROWD {
            let client = bench.connect();
            bench.turn();
            bench.crowd.push(client);
        }
        bench
    }

    fn with(shape: Shape, crowd: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let replicas: Vec<_> = (0..REPLICAS).map(|_| Replica::start()).collect();
        let addresses: Vec<SocketAddr> = replicas.iter().map(Replica::address).collect();
        // No request waits for a slot: how many of a crowd do would be another thing to look at.
        let slots = [("max-concurrent-requests-per-instance", "0")];
        let mut world = World::new().deployment("blue", if crowd { &slots } else { &[] }, &addresses);
        for number in 0..NEIGHBOURS {
            world = world.v1_service(&format!("neighbour-{number}"), &addresses);
        }
        let log = LogTarget::File("/dev/null".into());
        let worker = runtime.block_on(LoneWorker::start(&world, &log)).expect("the worker starts");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let word = |closes| if closes { "close" } else { "keep-alive" };
        let request = REQUEST.replace("CONNECTION", word(shape == Shape::Fresh)).into_bytes();
        let answer = if shape == Shape::Event { STREAM } else { ANSWER };
        let answer = answer.replace("CONNECTION", word(shape == Shape::Closing)).into_bytes();
        Self {
            runtime,
            worker,
            listener,
            client: None,
            crowd: Vec::new(),
            arrived: None,
            replicas,
            request,
            answer,
            shape,
        }
    }

    /// A client connects.
    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().expect("it is bound")).expect("a connection");
        client.set_nodelay(true).expect("a connected socket takes options");
        client.set_nonblocking(true).expect("a connected socket takes options");
        let (socket, _) = self.listener.accept().expect("the connection arrives");
        self.arrived = Some(socket);
        client
    }

    /// Whatever the worker has to do now: a look at the sockets, the tasks that are ready then, and another look.
    pub(crate) fn turn(&mut self) {
        self.runtime.block_on(async {
            if let Some(socket) = self.arrived.take() {
                self.worker.serve(socket).expect("the worker takes it");
            }
            yield_now().await;
            yield_now().await;
        });
    }

    /// One exchange; `turn` is called as often as it takes.
    pub(crate) fn exchange(&mut self, mut turn: impl FnMut(&mut Self)) {
        if self.shape == Shape::Event {
            return self.event(EVENT, turn);
        }
        let mut client = self.client.take().unwrap_or_else(|| self.connect());
        client.write_all(&self.request).expect("the router reads");
        let closes = self.shape == Shape::Closing;
        self.until("the request reaches a replica", &mut turn, |bench| {
            bench.replicas.iter_mut().any(|replica| replica.serve(&bench.answer, closes))
        });
        self.until("the answer reaches the client", &mut turn, |_| {
            let mut buffer = [0; 4096];
            let Some(read) = read(&mut client, &mut buffer) else { return false };
            assert!(read.starts_with(b"HTTP/1.1 200") && read.ends_with(ANSWER_END), "{}", read.escape_ascii());
            true
        });
        if self.shape == Shape::Fresh {
            assert_eq!(client.read(&mut [0]).expect("the router has closed the connection"), 0);
        } else {
            self.client = Some(client);
        }
    }

    /// An exchange of each client of a crowd, all of them in the same turns.
    pub(crate) fn crowd(&mut self, mut turn: impl FnMut(&mut Self)) {
        let mut crowd = std::mem::take(&mut self.crowd);
        crowd.iter_mut().for_each(|client| client.write_all(&self.request).expect("the router reads"));
        let mut served = 0;
        self.until("the requests reach the replicas", &mut turn, |bench| {
            for replica in &mut bench.replicas {
                while replica.serve(&bench.answer, false) {
                    served += 1;
                }
            }
            served == CROWD
        });
        let mut answered = [false; CROWD];
        self.until("the answers reach the clients", &mut turn, |_| {
            for (client, answered) in crowd.iter_mut().zip(&mut answered).filter(|(_, answered)| !**answered) {
                *answered = read(client, &mut [0; 4096]).is_some_and(|read| read.ends_with(ANSWER_END));
            }
            !answered.contains(&false)
        });
        self.crowd = crowd;
    }

    /// A stream begins: a request, and the head of an answer that does not end.
    fn open_stream(&mut self) -> TcpStream {
        let mut client = self.connect();
        client.write_all(&self.request).expect("the router reads");
        self.until("the request reaches a replica", &mut Self::turn, |bench| {
            bench.replicas.iter_mut().any(|replica| replica.serve(&bench.answer, false))
        });
        self.until("the head reaches the client", &mut Self::turn, |_| {
            read(&mut client, &mut [0; 4096]).is_some_and(|read| read.ends_with(b"\r\n\r\n"))
        });
        client
    }

    /// The replica writes this chunk, and the client gets it.
    fn event(&mut self, chunk: &[u8], mut turn: impl FnMut(&mut Self)) {
        let mut client = self.client.take().unwrap_or_else(|| self.open_stream());
        self.replicas.iter_mut().for_each(|replica| replica.send(chunk));
        self.until("the event reaches the client", &mut turn, |_| {
            let mut buffer = [0; 4096];
            let Some(read) = read(&mut client, &mut buffer) else { return false };
            assert_eq!(read.escape_ascii().to_string(), chunk.escape_ascii().to_string());
            true
        });
        self.client = Some(client);
    }

    fn until(&mut self, what: &str, turn: &mut impl FnMut(&mut Self), mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS_MAX {
            turn(self);
            if done(self) {
                return;
            }
        }
        panic!("not after {TURNS_MAX} turns: {what}");
    }

    /// Checks that nothing was left out of the count: each exchange has its line in the log, and so has a stream.
    pub(crate) fn finish(mut self, exchanges: u32) {
        if self.shape == Shape::Event {
            self.event(STREAM_END, Self::turn);
            return assert_eq!(self.worker.lines(), 1);
        }
        assert_eq!(self.worker.lines(), u64::from(exchanges));
    }
}

impl Replica {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a bound socket takes options");
        Self { listener, connections: Vec::new() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Goes on with all answers.
    fn send(&mut self, bytes: &[u8]) {
        self.connections.iter_mut().for_each(|socket| socket.write_all(bytes).expect("the router reads"));
    }

    /// Answers a request that has arrived. Says whether there was one.
    fn serve(&mut self, answer: &[u8], closes: bool) -> bool {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nonblocking(true).expect("a connected socket takes options");
            socket.set_nodelay(true).expect("a connected socket takes options");
            self.connections.push(socket);
        }
        let mut buffer = [0; 4096];
        let Some(at) = self.connections.iter_mut().position(|socket| {
            let Some(read) = read(socket, &mut buffer) else { return false };
            assert!(read.starts_with(b"POST /score HTTP/1.1\r\n") && read.ends_with(REQUEST_END), "{read:?}");
            true
        }) else {
            return false;
        };
        self.connections[at].write_all(answer).expect("the router reads");
        if closes {
            self.connections.remove(at);
        }
        true
    }
}

/// What has arrived, if anything. The messages here are small enough to arrive in one piece.
fn read<'b>(socket: &mut TcpStream, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    match socket.read(buffer) {
        Ok(0) => panic!("the router closed a connection"),
        Ok(n) => Some(&buffer[..n]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}
