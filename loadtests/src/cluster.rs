//! An API server with one thing to do: list a fixed world, and tell of changed EndpointSlices at a given rate.
//!
//! One thread with its own runtime; dropping it ends it. It shares the machine with what is measured, so its thread has
//! what clients and replicas leave of their core, and what it tells is written beforehand, up to the versions. The pods
//! have addresses of a network that nobody is asked to reach: what changes here is never scored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::machine::step_back;

/// The version of the listed world; changes count on from here.
const LISTED: u64 = 1000;

/// Ticks in which changes are sent, per second.
const TICKS: u32 = 50;

/// A running one.
pub struct Cluster {
    address: SocketAddr,
    rate: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

/// What all connections share.
#[derive(Clone)]
struct World {
    deployments: usize,
    /// Of each deployment the events that tell of it with one replica and with two.
    events: Arc<Vec<[Event; 2]>>,
    rate: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

/// What comes before and after the version, of a line that tells of a changed slice.
struct Event(String, String);

impl Event {
    fn of(number: usize, alone: bool) -> Self {
        let line = json!({ "type": "MODIFIED", "object": slice(number, "VERSION", alone) }).to_string();
        let (before, after) = line.split_once("VERSION").unwrap_or_default();
        Self(before.to_owned(), after.to_owned())
    }
}

impl Cluster {
    /// Starts one with so many deployments of one replica each.
    pub fn start(deployments: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(|| {
                if let Err(error) = step_back() {
                    println!("times are also those of the API server of this program: {error:#}");
                }
            })
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let events = (0..deployments).map(|number| [false, true].map(|alone| Event::of(number, alone)));
        let events = Arc::new(events.collect());
        let world = World { deployments, events, rate: Arc::default(), sent: Arc::default() };
        let (rate, sent) = (world.rate.clone(), world.sent.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let world = world.clone();
                // A watch ends when the router goes.
                tokio::spawn(async move { drop(world.serve(stream).await) });
            }
        });
        Ok(Self { address, rate, sent, runtime: Some(runtime) })
    }

    /// How the router finds it.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: loadtests\n\
             clusters: [{{name: loadtests, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: loadtests, user: {{}}}}]\n\
             contexts: [{{name: loadtests, context: {{cluster: loadtests, user: loadtests}}}}]\n",
            self.address
        )
    }

    /// Sends so many changes a second from now on.
    pub fn change(&self, per_second: u64) {
        self.rate.store(per_second, Ordering::Relaxed);
    }

    /// Changes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl World {
    /// One request, then the connection is over.
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (reading, mut writing) = stream.into_split();
        let mut lines = BufReader::new(reading).lines();
        let asked = lines.next_line().await?.unwrap_or_default();
        while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
        let is_of = |plural: &str| asked.contains(&format!("/{plural}"));
        let (kind, version, objects): (_, _, Vec<Value>) = if is_of("endpointslices") {
            let all = (0..self.deployments).map(|number| slice(number, &LISTED.to_string(), true));
            ("EndpointSliceList", "discovery.k8s.io/v1", all.collect())
        } else if is_of("services") {
            ("ServiceList", "v1", (0..self.deployments).map(service).collect())
        } else {
            ("SecretList", "v1", Vec::new())
        };
        if asked.contains("watch=") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            writing.write_all(head.as_bytes()).await?;
            return self.tell(&mut writing, kind == "EndpointSliceList").await;
        }
        let list = json!({
            "kind": kind, "apiVersion": version, "metadata": { "resourceVersion": LISTED.to_string() }, "items": objects,
        });
        let body = list.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        writing.write_all(head.as_bytes()).await?;
        writing.write_all(body.as_bytes()).await
    }

    /// Tells of changes, evenly over each second; of everything but slices there are none.
    async fn tell(&self, writing: &mut (impl tokio::io::AsyncWrite + Unpin), slices: bool) -> std::io::Result<()> {
        let mut beat = tokio::time::interval(Duration::from_secs(1) / TICKS);
        let mut last = Instant::now();
        let mut due = 0.0;
        let mut told: u64 = 0;
        loop {
            beat.tick().await;
            let rate = if slices { self.rate.load(Ordering::Relaxed) } else { 0 };
            due += rate as f64 * last.elapsed().as_secs_f64();
            last = Instant::now();
            let mut chunk = String::new();
            while due >= 1.0 {
                due -= 1.0;
                told += 1;
                let number = usize::try_from(told).unwrap_or(0) % self.deployments;
                // A second replica comes and goes.
                let alone = (told / self.deployments as u64) % 2 == 1;
                let Event(before, after) = &self.events[number][usize::from(alone)];
                chunk.push_str(&format!("{before}{}{after}\n", LISTED + told));
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            if !chunk.is_empty() {
                writing.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await?;
            }
        }
    }
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("churn-{number}"), "namespace": "churn", "uid": format!("service-{number}"),
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "ml.azure.com/endpoint-name": format!("churn-{number}"), "ml.azure.com/deployment-name": "blue"
            },
            "annotations": { "scorefront.dev/auth-mode": "none" }
        },
        "spec": { "ports": [{ "name": "http", "port": 80 }] }
    })
}

fn slice(number: usize, version: &str, alone: bool) -> Value {
    let pod = |last: usize| {
        json!({
            "addresses": [format!("198.18.{}.{}", number / 100 % 250, number % 100 * 2 + last)],
            "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "name": format!("churn-{number}-{last}"), "namespace": "churn" }
        })
    };
    let pods = if alone { vec![pod(0)] } else { vec![pod(0), pod(1)] };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("churn-{number}-a"), "namespace": "churn", "uid": format!("slice-{number}"),
            "resourceVersion": version,
            "labels": { "kubernetes.io/service-name": format!("churn-{number}") }
        },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 5001 }], "endpoints": pods
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_slice_once_it_has_its_version() {
        for alone in [false, true] {
            let Event(before, after) = Event::of(7, alone);
            let event: Value = serde_json::from_str(&format!("{before}1234{after}")).unwrap();
            assert_eq!(event, json!({ "type": "MODIFIED", "object": slice(7, "1234", alone) }));
            assert_eq!(event["object"]["endpoints"].as_array().unwrap().len(), 2 - usize::from(alone));
        }
    }
}
