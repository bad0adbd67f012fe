//! The clients of a soak: each has a connection for a while, sends one request after the other, and misbehaves at times.
//!
//! Bounded: a client has one request under way, each with a deadline, and rests between two.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, Version};
use rustls::ClientConfig;
use tokio::time::{sleep, timeout};

use super::account::{Account, Saw, id};
use super::authority::NAME;
use super::link::{Link, Way};
use super::raw::{Raw, code_of};
use super::replica::{Arrivals, LENGTH_HEADER, SERVE_HEADER};
use super::world::{Endpoint, REQUEST_TIMEOUT_MS, World};
use crate::dice::Dice;

/// The longest that one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// Mean time between two requests of a client.
const REST: Duration = Duration::from_millis(150);

/// Requests on one connection are at most so many.
const KEPT_MAX: u64 = 40;

/// What all clients share.
pub struct Ground {
    /// Where the router listens, without TLS and with it.
    pub plain: SocketAddr,
    /// See above.
    pub tls: SocketAddr,
    /// How to speak TLS, for HTTP/1.1 and for HTTP/2.
    pub configs: [Arc<ClientConfig>; 2],
    /// See [`World`].
    pub world: World,
    /// See [`Account`].
    pub account: Arc<Account>,
    /// See [`Arrivals`].
    pub arrivals: Arrivals,
    /// Set when clients are to end.
    pub stop: AtomicBool,
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Small,
    LargeBody,
    LargeAnswer,
    Events,
    Failure,
    TooLong,
    WrongKey,
    UnknownEndpoint,
    LeaveWaiting,
    LeaveReading,
    LeaveSending,
    Talk,
    SlowHead,
    SlowBody,
    Stare,
}

/// How often each is done, in a thousand.
const ACTS: [(Act, u64); 15] = [
    (Act::Small, 620),
    (Act::LargeBody, 60),
    (Act::LargeAnswer, 60),
    (Act::Events, 60),
    (Act::Failure, 30),
    (Act::TooLong, 4),
    (Act::WrongKey, 40),
    (Act::UnknownEndpoint, 30),
    (Act::LeaveWaiting, 25),
    (Act::LeaveReading, 25),
    (Act::LeaveSending, 15),
    (Act::Talk, 15),
    (Act::SlowHead, 4),
    (Act::SlowBody, 4),
    (Act::Stare, 8),
];

/// One client.
pub struct Client {
    ground: Arc<Ground>,
    dice: Dice,
    way: Way,
    link: Option<Link>,
    left_on_link: u64,
}

impl Client {
    /// Its number decides how it connects, and seeds its chances.
    pub fn new(ground: Arc<Ground>, number: u64, seed: u64) -> Self {
        let (is_http2, has_tls) = (number & 1 == 1, number & 2 == 2);
        let [http1, http2] = &ground.configs;
        let tls = has_tls.then(|| if is_http2 { http2.clone() } else { http1.clone() });
        let target = if has_tls { ground.tls } else { ground.plain };
        let dice = Dice::new(seed.wrapping_mul(1009).wrapping_add(number));
        Self { way: Way { target, is_http2, tls }, ground, dice, link: None, left_on_link: 0 }
    }

    /// Until it is told to stop.
    pub async fn live(mut self) -> anyhow::Result<()> {
        while !self.ground.stop.load(Ordering::Relaxed) {
            sleep(self.dice.exponential(REST)).await;
            let mut pick = self.dice.below(ACTS.iter().map(|(_, weight)| weight).sum());
            let act = ACTS.into_iter().find_map(|(act, weight)| {
                let is_it = pick < weight;
                pick = pick.saturating_sub(weight);
                is_it.then_some(act)
            });
            let act = act.unwrap_or(Act::Small);
            timeout(REQUEST_MAX * 2, self.act(act)).await.with_context(|| format!("{act:?} hangs"))??;
        }
        Ok(())
    }

    async fn act(&mut self, act: Act) -> anyhow::Result<()> {
        let endpoint = match self.dice.below(3) {
            0 => Endpoint::Calm,
            1 => Endpoint::Moving,
            _ => Endpoint::Dying,
        };
        let account = self.ground.account.clone();
        let is_sure = endpoint != Endpoint::Dying;
        let sure = |status: u16| is_sure.then_some(status);
        let number = if act == Act::SlowHead { 0 } else { account.open() };
        let key = self.ground.world.key();
        let raw = Raw { target: self.ground.plain, endpoint: endpoint.name(), key: &key, number };
        match act {
            Act::Small => self.ask(Ask::new(number, endpoint), sure(200)).await?,
            Act::LargeBody => {
                let length = 1 << (12 + self.dice.below(9));
                self.ask(Ask { sent: length, ..Ask::new(number, endpoint) }, sure(200)).await?;
            }
            Act::LargeAnswer => {
                let length = 1 << (12 + self.dice.below(9));
                self.ask(Ask { wanted: Some(length), ..Ask::new(number, endpoint) }, sure(200)).await?;
            }
            Act::Events => self.ask(Ask { path: "events", ..Ask::new(number, endpoint) }, sure(200)).await?,
            Act::Failure => self.ask(Ask { path: "fail", ..Ask::new(number, endpoint) }, sure(502)).await?,
            Act::TooLong => {
                let serve = REQUEST_TIMEOUT_MS + 1000;
                self.ask(Ask { serve_ms: serve, ..Ask::new(number, endpoint) }, sure(504)).await?;
            }
            Act::WrongKey => self.ask(Ask { key: Some("wrong"), ..Ask::new(number, endpoint) }, Some(401)).await?,
            Act::UnknownEndpoint => {
                let name = format!("unknown-{}", self.dice.below(1_000_000));
                self.ask(Ask { name: &name, ..Ask::new(number, endpoint) }, Some(404)).await?;
            }
            Act::LeaveWaiting => {
                self.leave(Ask { serve_ms: 2000, ..Ask::new(number, endpoint) }, false).await?;
            }
            Act::LeaveReading => self.leave(Ask { path: "events", ..Ask::new(number, endpoint) }, true).await?,
            Act::LeaveSending => {
                let stream = raw.begin_upload().await?;
                self.wait_for_arrival(number).await;
                drop(stream);
                account.say(number, Saw::Left, None);
            }
            Act::Talk => account.say(number, raw.talk().await?, sure(101)),
            Act::SlowHead => match raw.slow_head().await? {
                Some(408) => account.say_nameless(),
                other => anyhow::bail!("a slow head was answered with {other:?}, not 408"),
            },
            Act::SlowBody => account.say(number, raw.slow_body().await?, sure(408)),
            Act::Stare => {
                raw.stare().await?;
                account.say(number, Saw::Left, None);
            }
        }
        self.ground.arrivals.take(number);
        Ok(())
    }

    /// A connection with room for another request.
    async fn link(&mut self) -> anyhow::Result<&mut Link> {
        let is_usable = match &mut self.link {
            Some(link) if self.left_on_link > 0 => link.is_usable().await,
            _ => false,
        };
        if !is_usable {
            self.link = None;
            self.left_on_link = 1 + self.dice.below(KEPT_MAX);
        }
        self.left_on_link -= 1;
        match &mut self.link {
            Some(link) => Ok(link),
            link => Ok(link.insert(Link::open(&self.way).await?)),
        }
    }

    /// Sends a request, reads the answer, and tells.
    async fn ask(&mut self, ask: Ask<'_>, expected: Option<u16>) -> anyhow::Result<()> {
        let request = self.request(&ask)?;
        let link = self.link().await?;
        let saw = match timeout(REQUEST_MAX, exchange(link, request)).await {
            Ok(saw) => saw,
            Err(_) => Saw::Nothing(format!("no answer within {REQUEST_MAX:?}")),
        };
        if !matches!(saw, Saw::Whole(..)) {
            self.link = None;
        }
        self.ground.account.say(ask.number, saw, expected);
        Ok(())
    }

    /// Sends a request and leaves when the replica has it, or when the answer has begun.
    async fn leave(&mut self, ask: Ask<'_>, is_reading: bool) -> anyhow::Result<()> {
        let (request, number) = (self.request(&ask)?, ask.number);
        self.link().await?;
        let Some(mut link) = self.link.take() else { return Ok(()) };
        if is_reading {
            if let Ok(Ok(mut answer)) = timeout(REQUEST_MAX, link.send(request)).await {
                // Whatever it is: it is not read further.
                drop(timeout(REQUEST_MAX, answer.frame()).await);
            }
        } else {
            tokio::select! {
                answer = link.send(request) => drop(answer),
                () = self.wait_for_arrival(number) => {}
            }
        }
        self.ground.account.say(number, Saw::Left, None);
        if self.way.is_http2 {
            // Only the stream was given up; the connection serves on.
            self.link = Some(link);
        }
        Ok(())
    }

    async fn wait_for_arrival(&self, number: u64) {
        // A request that is refused never arrives.
        let arrived = async {
            while !self.ground.arrivals.take(number) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        drop(timeout(Duration::from_secs(10), arrived).await);
    }

    fn request(&self, ask: &Ask<'_>) -> anyhow::Result<Request<Full<Bytes>>> {
        let target = format!("/api/v1/endpoint/{}/{}", ask.name, ask.path);
        let key = ask.key.map_or_else(|| self.ground.world.key(), str::to_owned);
        let mut request = Request::post(&target).header(AUTHORIZATION, format!("Bearer {key}"));
        if self.way.is_http2 {
            let scheme = if self.way.tls.is_some() { "https" } else { "http" };
            request = request.version(Version::HTTP_2).uri(format!("{scheme}://{NAME}{target}"));
        } else {
            request = request.header(HOST, NAME);
        }
        request = request.header("x-ms-client-request-id", id(ask.number)).header(SERVE_HEADER, ask.serve_ms);
        if let Some(length) = ask.wanted {
            request = request.header(LENGTH_HEADER, length);
        }
        Ok(request.body(Full::from(vec![b'1'; ask.sent]))?)
    }
}

/// A request to be.
struct Ask<'a> {
    number: u64,
    name: &'a str,
    path: &'a str,
    /// A key that is not the good one.
    key: Option<&'a str>,
    serve_ms: u64,
    sent: usize,
    wanted: Option<usize>,
}

impl Ask<'_> {
    fn new(number: u64, endpoint: Endpoint) -> Self {
        Self { number, name: endpoint.name(), path: "score", key: None, serve_ms: 5, sent: 47, wanted: None }
    }
}

async fn exchange(link: &mut Link, request: Request<Full<Bytes>>) -> Saw {
    let answer = match link.send(request).await {
        Ok(answer) => answer,
        Err(error) => return Saw::Nothing(error.to_string()),
    };
    let status = answer.status().as_u16();
    match answer.into_body().collect().await {
        Ok(body) => Saw::Whole(status, code_of(&body.to_bytes())),
        Err(_) => Saw::Part(status),
    }
}
