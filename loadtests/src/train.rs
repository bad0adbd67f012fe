//! A trial run for the compiler: what a router does all day, so that a build that counts calls learns what to make fast.
//!
//! Nothing is measured or judged here but that each request is answered. The kinds of traffic are those of `speed`, and
//! HTTP/2 and TLS beside them: what is not in the trial is taken for rare, and made small instead of fast.
//! Bounded: each kind of traffic ends when its time is over, each request has a deadline.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Version};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::contenders::{Face, Starter};
use crate::manifests::{Deployment, KEY, write_secret};
use crate::origin::BIG;
use crate::process::free_address;
use crate::replica::Replicas;
use crate::report::Verdict;
use crate::router::Router;
use crate::soak::authority::{Authority, NAME};
use crate::soak::link::{Link, Way};

/// Endpoints beside those that are asked.
const NEIGHBOURS: usize = 96;

/// How long a request may take: the build that counts is slow, and may be one without optimisation.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// One-slot replicas that close after each answer.
const CLOSING: usize = 16;

/// How it is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The binary that counts.
    #[arg(long)]
    scorefront: PathBuf,
    /// Seconds for each of nine kinds of traffic.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Where manifests and logs go.
    #[arg(long, default_value = "target/train")]
    dir: PathBuf,
}

/// One kind of traffic.
struct Traffic {
    what: &'static str,
    endpoint: &'static str,
    tls: bool,
    http2: bool,
    connections: usize,
    /// Whether a connection carries more than one request.
    keeps: bool,
    sent: usize,
}

impl Traffic {
    const SMALL: Self =
        Self { what: "small", endpoint: "small", tls: false, http2: false, connections: 64, keeps: true, sent: 47 };

    /// All of it.
    const ALL: [Self; 9] = [
        Self::SMALL,
        Self { what: "TLS", tls: true, ..Self::SMALL },
        Self { what: "HTTP/2", http2: true, ..Self::SMALL },
        Self { what: "HTTP/2 with TLS", tls: true, http2: true, ..Self::SMALL },
        Self { what: "new connections", keeps: false, ..Self::SMALL },
        Self { what: "new connections with TLS", tls: true, connections: 8, keeps: false, ..Self::SMALL },
        Self { what: "replicas that close", endpoint: "closing", ..Self::SMALL },
        Self { what: "big bodies and answers", endpoint: "big", connections: 8, sent: BIG, ..Self::SMALL },
        Self { what: "events", endpoint: "events", keeps: false, ..Self::SMALL },
    ];
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let starter =
        Starter { dir: &dir, core: None, scorefront: &arguments.scorefront, envoy: "".as_ref(), face: Face::PLAIN };
    let (small, _small_process) = starter.origin(None, "small")?;
    let (big, _big_process) = starter.origin(None, "big")?;
    let (events, _events_process) = starter.origin(None, "events")?;
    let closing = Replicas::start(CLOSING)?;
    let authority = Authority::found(&dir.join("certificate"))?;
    let tls = free_address()?;
    let file = |name: &str| dir.join("certificate").join(name).display().to_string();
    let settings = [
        format!("--listen-tls={tls}"),
        format!("--tls-cert={}", file("tls.crt")),
        format!("--tls-key={}", file("tls.key")),
        // One client, and its address, stand for all.
        "--max-connections-per-address=0".to_owned(),
    ];
    let router =
        Router::start(&arguments.scorefront, None, &dir, &world([small, big, events], closing.addresses()), &settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for traffic in &Traffic::ALL {
        let way = Way {
            target: if traffic.tls { tls } else { router.address },
            is_http2: traffic.http2,
            tls: if traffic.tls {
                Some(authority.client(if traffic.http2 { "h2" } else { "http/1.1" })?)
            } else {
                None
            },
        };
        let until = Instant::now() + Duration::from_secs(arguments.seconds);
        let answered = runtime.block_on(send_all(traffic, way, until)).with_context(|| traffic.what)?;
        println!("{}: {answered} requests", traffic.what);
        // The metrics and pages are asked for all day too.
        router.metrics()?;
    }
    Ok(Verdict::Passed)
}

fn world([small, big, events]: [SocketAddr; 3], closing: &[SocketAddr]) -> String {
    let mut world = String::new();
    let neighbours: Vec<_> = (0..NEIGHBOURS).map(|number| format!("neighbour-{number}")).collect();
    let unlimited = [("max-concurrent-requests-per-instance", "0")];
    let asked = [
        ("small", &[small][..], &unlimited[..]),
        ("big", &[big], &unlimited),
        ("events", &[events], &unlimited),
        ("closing", closing, &[]),
    ];
    let all = neighbours.iter().map(|name| (&**name, asked[0].1, asked[0].2)).chain(asked);
    for (endpoint, replicas, annotations) in all {
        write_secret(endpoint, &mut world);
        Deployment { endpoint, name: "blue", annotations, replicas }.write(&mut world);
    }
    world
}

/// Requests until the time is over; how many were answered. The first that is not ends it.
async fn send_all(traffic: &'static Traffic, way: Way, until: Instant) -> anyhow::Result<u64> {
    let mut running = JoinSet::new();
    for _ in 0..traffic.connections {
        running.spawn(send_on_one(traffic, way.clone(), until));
    }
    let mut answered = 0;
    while let Some(ended) = running.join_next().await {
        answered += ended??;
    }
    Ok(answered)
}

async fn send_on_one(traffic: &'static Traffic, way: Way, until: Instant) -> anyhow::Result<u64> {
    let (mut link, mut answered) = (None, 0);
    while Instant::now() < until {
        if !traffic.keeps {
            link = None;
        }
        let link = match &mut link {
            Some(link) => link,
            none => none.insert(Link::open(&way).await?),
        };
        anyhow::ensure!(link.is_usable().await, "a connection was closed");
        let answer = link.send(request(traffic, &way)?);
        let (head, mut body) = timeout(REQUEST_MAX, answer).await.context("no answer in time")??.into_parts();
        anyhow::ensure!(head.status == 200, "answered with {}", head.status);
        // A stream of events goes on for longer than this runs.
        while Instant::now() < until
            && let Some(frame) = timeout(REQUEST_MAX, body.frame()).await.context("no end of an answer in time")?
        {
            frame?;
        }
        answered += 1;
    }
    Ok(answered)
}

fn request(traffic: &Traffic, way: &Way) -> anyhow::Result<Request<Full<Bytes>>> {
    let target = format!("/api/v1/endpoint/{}/score", traffic.endpoint);
    let mut request = Request::post(&target)
        .header(AUTHORIZATION, format!("Bearer {KEY}"))
        .header(CONTENT_TYPE, "application/json")
        .header("user-agent", "python-requests/2.32.3")
        .header("accept", "*/*");
    if way.is_http2 {
        let scheme = if way.tls.is_some() { "https" } else { "http" };
        request = request.version(Version::HTTP_2).uri(format!("{scheme}://{NAME}{target}"));
    } else {
        request = request.header(HOST, NAME);
    }
    Ok(request.body(Full::from(vec![b'1'; traffic.sent]))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_traffic_goes_to_endpoints_that_are_there() {
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let world = world([address; 3], &[address]);
        for traffic in &Traffic::ALL {
            let service = format!("kind: Service\nmetadata:\n  name: {}-blue\n", traffic.endpoint);
            assert_eq!(world.matches(&service).count(), 1, "{}", traffic.what);
        }
    }
}
