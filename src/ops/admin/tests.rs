//! The admin port over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::core::cors::{Origins, Rules};
use crate::core::facts::{Form, KeyDigest, Name, ObjectRef, Problem, Settings};
use crate::core::limiter::{Limiter, Rates};
use crate::core::limits::Limits;
use crate::core::rate::Limit;
use crate::core::replica_tls::Wire;
use crate::core::snapshot::{Access, Deployment, Endpoint, Replica};
use crate::core::split::Split;
use crate::core::state::{DeploymentState, RefusalState};

use super::*;

struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Levels can be changed only while their log lives.
    _log: Box<dyn std::any::Any>,
}

impl Running {
    fn start() -> Self {
        let mut world = Snapshot::default();
        world.version = 7;
        world.insert(endpoint("Iris", 9001));
        world.insert(endpoint("abalone", 9002));
        let snapshot = Arc::new(ArcSwap::from_pointee(world));
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        let (levels, log) = Levels::detached("info");
        let state = Arc::new(State {
            metrics: Metrics::new(snapshot.clone(), vitals.clone(), &Limits::default()),
            ready: Ready::new(vitals.clone()),
            levels,
            config: serde_json::json!({ "workers": 2 }),
            snapshot,
            vitals,
        });
        let admin = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        let (address, served) = (admin.local_addr(), state.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let shutdown = async { drop(stopped.await) };
            runtime.block_on(admin.serve(served, shutdown)).expect("serves");
        });
        Self { address, state, stop: Some(stop), thread: Some(thread), _log: Box::new(log) }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let head_end = request.find("\r\n").expect("a request line") + 2;
        let (line, rest) = request.split_at(head_end);
        write!(stream, "{line}host: admin\r\nconnection: close\r\n{rest}").expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reads");
        answer
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("ends without panic");
        }
    }
}

fn endpoint(name: &str, port: u16) -> Arc<Endpoint> {
    let blue = Deployment {
        endpoint: Name::new(name),
        name: Name::new("blue"),
        object: ObjectRef::new("models", "iris-blue"),
        settings: Settings::default(),
        traffic_percent: Some(100),
        wire: Wire::Plain,
        replicas: Arc::from([Replica::sample(port, 1), Replica::sample(port - 500, 1)]),
        finishing: Vec::new(),
        state: Arc::new(DeploymentState::new(1, 1)),
    };
    Arc::new(Endpoint {
        name: Name::new(name),
        form: Form::Endpoint,
        namespace: "models".into(),
        deployments: vec![Arc::new(blue)],
        split: Split::new(&[Some(100)]),
        mirror: None,
        access: Access::Keys(Arc::from([KeyDigest::Plain([0xab; 32])])),
        cors: None,
        limiter: Limiter::default(),
        refusals: Arc::new(RefusalState::new(1)),
        shares: Arc::default(),
    })
}

#[test]
fn health_readiness_and_index_answer() {
    let admin = Running::start();
    assert_eq!(admin.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(admin.get("/readyz"), (200, "ready\n".to_owned()));
    let block = admin.state.ready.block("the list of Services");
    assert_eq!(admin.get("/readyz"), (503, "waiting for the list of Services\n".to_owned()));
    drop(block);
    assert_eq!(admin.get("/readyz").0, 200);
    admin.state.vitals.set_draining();
    assert_eq!(admin.get("/readyz").0, 503);
    assert_eq!(admin.get("/healthz").0, 200);
    let (status, index) = admin.get("/");
    assert_eq!(status, 200);
    assert!(PAGES.iter().all(|(page, _)| index.contains(page)));
}

#[test]
fn an_unknown_page_lists_those_there_are_and_wrong_methods_are_told_the_right_ones() {
    let admin = Running::start();
    let (status, body) = admin.get("/metric");
    assert_eq!(status, 404);
    assert!(body.contains("/metrics") && body.contains("\"/metric\""), "{body}");
    let answer = admin.ask("POST /metrics HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let admin = Running::start();
    let answer = admin.ask("HEAD /healthz HTTP/1.1\r\n\r\n");
    assert!(answer.contains("content-length: 3\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn metrics_come_as_text_or_open_metrics() {
    let admin = Running::start();
    let classic = admin.ask("GET /metrics HTTP/1.1\r\n\r\n");
    assert!(classic.contains("content-type: text/plain; version=0.0.4"), "{classic}");
    assert!(classic.contains("\n# TYPE scorefront_requests_total counter\n"));
    let open =
        admin.ask("GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n");
    assert!(open.contains("content-type: application/openmetrics-text"), "{open}");
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn the_snapshot_is_sorted_and_holds_no_key() {
    let admin = Running::start();
    let problem = Problem {
        kind: "Service",
        object: ObjectRef::new("models", "iris-blue"),
        field: "scorefront.dev/traffic-percent".to_owned(),
        message: "\"101\" is out of range; allowed: 0 to 100".to_owned(),
    };
    admin.state.vitals.discovery.problems.lock().push(problem);
    let (status, body) = admin.get("/debug/snapshot");
    assert_eq!(status, 200);
    let world: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(world["version"], 7);
    assert_eq!(world["endpoints"][0]["name"], "abalone");
    assert_eq!(world["endpoints"][1]["name"], "Iris");
    assert_eq!(world["endpoints"][1]["keys"], 1);
    let replicas = &world["endpoints"][1]["deployments"][0]["replicas"];
    assert_eq!(replicas[0]["address"], "127.0.0.1:8501");
    assert_eq!(replicas[0]["limit"], 1);
    assert_eq!(world["problems"][0]["object"], "models/iris-blue");
    assert!(!body.contains("171") && !body.contains("abab"), "no digest of a key: {body}");
    assert_eq!(admin.get("/debug/config").1, "{\n  \"workers\": 2\n}\n");
}

#[test]
fn the_snapshot_shows_the_rules_of_an_endpoint_as_they_are_in_force() {
    let admin = Running::start();
    let mut snapshot = (**admin.state.snapshot.load()).clone();
    let open = endpoint("open", 9000);
    let rules = Rules {
        origins: Some(Origins::These(vec!["https://app.example.com".to_owned()])),
        max_age_s: Some(60),
        ..Rules::default()
    };
    let rates = Rates {
        endpoint: Limit { per_second: Some(5), ..Limit::default() },
        key: Limit { concurrent: Some(2), ..Limit::default() },
    };
    let ruled = Endpoint {
        cors: rules.compile().map(Arc::new),
        limiter: Limiter { rates, ..Limiter::default() },
        ..Arc::into_inner(endpoint("ruled", 9100)).unwrap()
    };
    snapshot.insert(open);
    snapshot.insert(Arc::new(ruled));
    admin.state.snapshot.store(Arc::new(snapshot));
    let world: serde_json::Value = serde_json::from_str(&admin.get("/debug/snapshot").1).expect("JSON");
    let find = |name: &str| world["endpoints"].as_array().unwrap().iter().find(|e| e["name"] == name).unwrap();
    assert!(find("open")["cors"].is_null() && find("open")["rate_limits"].is_null());
    let cors = &find("ruled")["cors"];
    assert_eq!((&cors["origins"][0], &cors["methods"][0]), (&"https://app.example.com".into(), &"POST".into()));
    assert_eq!((&cors["max_age_s"], &cors["headers"][0]), (&"60".into(), &"authorization".into()));
    let limits = &find("ruled")["rate_limits"];
    assert_eq!((&limits["endpoint"]["per_second"], &limits["endpoint"]["burst"]), (&5.into(), &5.into()));
    assert_eq!((&limits["key"]["concurrent"], &limits["key"]["per_second"]), (&2.into(), &serde_json::Value::Null));
    assert_eq!(limits["refused"], 0);
}

#[test]
fn the_log_level_can_be_read_and_changed_within_limits() {
    let admin = Running::start();
    let put =
        |body: &str| admin.ask(&format!("PUT /log-level HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert!(put("scorefront=loud").starts_with("HTTP/1.1 400"));
    let endless = put(&"x".repeat(BODY_MAX + 1));
    assert!(endless.starts_with("HTTP/1.1 400") && endless.contains("4096 bytes at most"), "{endless}");
    assert_eq!(admin.get("/log-level"), (200, "info\n".to_owned()));
    let changed = put("scorefront=debug\n");
    assert!(changed.starts_with("HTTP/1.1 200") && changed.ends_with("\r\n\r\nscorefront=debug\n"), "{changed}");
    assert_eq!(admin.get("/log-level"), (200, "scorefront=debug\n".to_owned()));
}

#[test]
fn requests_that_never_end_are_limited_and_leave_probes_alone() {
    let admin = Running::start();
    let stalled: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(admin.address).expect("connects");
            write!(stream, "PUT /log-level HTTP/1.1\r\nhost: admin\r\ncontent-length: 9\r\n\r\n").expect("writes");
            stream
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(9);
    while admin.get("/metrics").0 != 503 {
        assert!(Instant::now() < deadline, "the limit is reached in time");
    }
    assert_eq!(admin.get("/healthz").0, 200);
    assert_eq!(admin.get("/readyz").0, 200);
    drop(stalled);
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_out() {
    let admin = Running::start();
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(admin.address).expect("connects")).collect();
    assert_eq!(admin.get("/healthz").0, 200);
    drop(silent);
}
