//! A Kubernetes API server that does what a test tells it, over a real socket.
//!
//! It keeps objects and their history as the real one does: every change has a version, a list says which version it
//! is of, a watch tells everything after the version it was asked for, and a version that was compacted away is gone.
//! On top of that it can be told to misbehave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::answers::{json_answer, line, refusal, status};

mod answers;

/// What is served, by its plural.
const PLURALS: [&str; 3] = ["services", "endpointslices", "secrets"];

type Body = BoxBody<Bytes, std::io::Error>;
/// `Err` breaks the connection.
type Chunk = Result<Bytes, std::io::Error>;

/// See the head of the file. Dropped, it is down.
pub struct FakeApi {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct World {
    version: u64,
    /// By plural, then by namespace and name.
    objects: BTreeMap<&'static str, BTreeMap<(String, String), Value>>,
    /// Everything that happened: version, plural, event.
    history: Vec<(u64, &'static str, Value)>,
    /// Watches from a version before this one are gone.
    compacted: u64,
    watchers: Vec<Watcher>,
    connections: Vec<JoinHandle<()>>,
    /// Plurals whose requests are refused with this status.
    refused: HashMap<&'static str, u16>,
    page: Option<usize>,
    /// Whether every page of a list but the first is refused.
    breaks_lists: bool,
    /// Path and selector of every request.
    asked: BTreeSet<String>,
    lists: HashMap<&'static str, usize>,
    watches: HashMap<&'static str, usize>,
    /// Whether events are sent a few bytes at a time.
    trickle: bool,
    /// Whether watches end as soon as they begin.
    ends_watches: bool,
}

struct Watcher {
    plural: &'static str,
    namespace: Option<String>,
    selector: Option<String>,
    chunks: mpsc::UnboundedSender<Chunk>,
}

impl FakeApi {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let api = Self { address, world: Arc::default(), accepting: Mutex::default() };
        api.serve(listener);
        api
    }

    /// How to reach it.
    pub fn config(&self) -> kube::Config {
        let uri = format!("http://{}", self.address).parse().expect("a URI");
        kube::Config::new(uri)
    }

    /// The same as the text of a kubeconfig.
    pub fn kubeconfig(&self) -> String {
        let server = self.config().cluster_url.to_string();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        })
        .to_string()
    }

    /// Adds or changes objects.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        let mut world = self.world.lock();
        for object in objects {
            world.apply(object);
        }
    }

    /// Deletes an object, given as for [`FakeApi::apply`].
    pub fn delete(&self, object: &Value) {
        self.world.lock().delete(object);
    }

    /// Changes the world without telling anybody and forgets the history: every watch that goes on from before is
    /// gone, as after a long absence.
    pub fn compact(&self, objects: impl IntoIterator<Item = Value>, deleted: &[&Value]) {
        let mut world = self.world.lock();
        let watchers = std::mem::take(&mut world.watchers);
        for object in objects {
            world.apply(object);
        }
        for object in deleted {
            world.delete(object);
        }
        world.watchers = watchers;
        world.version += 1;
        world.compacted = world.version;
        world.history.clear();
    }

    /// Forgets the history: watches can only go on from now.
    pub fn forget(&self) {
        let mut world = self.world.lock();
        world.compacted = world.version;
        world.history.clear();
    }

    /// Sends every watcher an ERROR event.
    pub fn send_error(&self, code: u16) {
        let event = json!({"type": "ERROR", "object": status(code, "Expired")});
        self.world.lock().watchers.retain(|watcher| watcher.chunks.send(Ok(line(&event))).is_ok());
    }

    /// Sends every watcher a BOOKMARK of the newest version.
    pub fn send_bookmark(&self) {
        let mut world = self.world.lock();
        let event = json!({"type": "BOOKMARK", "object": {
            "kind": "Any", "apiVersion": "v1", "metadata": {"resourceVersion": world.version.to_string()}
        }});
        world.watchers.retain(|watcher| watcher.chunks.send(Ok(line(&event))).is_ok());
    }

    /// Breaks every watch in the middle of a line.
    pub fn disconnect(&self) {
        for watcher in std::mem::take(&mut self.world.lock().watchers) {
            let _ = watcher.chunks.send(Ok(Bytes::from_static(b"{\"type\": \"ADD")));
            let _ = watcher.chunks.send(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
    }

    /// Refuses all requests for a plural with this status; `None` serves them again. Watches are ended.
    pub fn refuse(&self, plural: &'static str, status: Option<u16>) {
        let mut world = self.world.lock();
        match status {
            Some(status) => world.refused.insert(plural, status),
            None => world.refused.remove(plural),
        };
        world.watchers.retain(|watcher| watcher.plural != plural);
    }

    /// Lists at most so many objects at a time, whatever the client asks for.
    pub fn set_page(&self, page: usize) {
        self.world.lock().page = Some(page);
    }

    /// Whether every page of a list but the first is refused from now on.
    pub fn break_lists(&self, breaks: bool) {
        self.world.lock().breaks_lists = breaks;
    }

    /// Sends events a few bytes at a time from now on.
    pub fn set_trickle(&self) {
        self.world.lock().trickle = true;
    }

    /// Ends every watch as soon as it begins from now on.
    pub fn end_watches(&self) {
        let mut world = self.world.lock();
        world.ends_watches = true;
        world.watchers.clear();
    }

    /// How many lists were answered.
    pub fn lists(&self, plural: &str) -> usize {
        self.world.lock().lists.get(plural).copied().unwrap_or(0)
    }

    /// How many watches were asked for.
    pub fn watches(&self, plural: &str) -> usize {
        self.world.lock().watches.get(plural).copied().unwrap_or(0)
    }

    /// Path and selector of every request so far.
    pub fn asked(&self) -> BTreeSet<String> {
        self.world.lock().asked.clone()
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.world.lock().watchers.len()
    }

    /// Stops listening and breaks every connection.
    pub fn go_down(&self) {
        if let Some(accepting) = self.accepting.lock().take() {
            accepting.abort();
        }
        let mut world = self.world.lock();
        world.watchers.clear();
        world.connections.drain(..).for_each(|connection| connection.abort());
    }

    /// Listens again, where it did before.
    pub async fn come_up(&self) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(self.address).expect("the port is still free");
        self.serve(socket.listen(64).expect("a listener"));
    }

    fn serve(&self, listener: TcpListener) {
        let world = self.world.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let for_requests = world.clone();
                let service = service_fn(move |request| {
                    let answer = answer(&for_requests, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let connection = tokio::spawn(async move { drop(connection.await) });
                world.lock().connections.push(connection);
            }
        });
        *self.accepting.lock() = Some(accepting);
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.go_down();
    }
}

impl World {
    fn apply(&mut self, mut object: Value) {
        let (plural, key) = (plural_of(&object), key_of(&object));
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.entry(plural).or_default().insert(key, object.clone());
        self.tell(plural, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    fn delete(&mut self, object: &Value) {
        let (plural, key) = (plural_of(object), key_of(object));
        self.version += 1;
        let Some(mut object) = self.objects.entry(plural).or_default().remove(&key) else { return };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(plural, "DELETED", &object);
    }

    fn tell(&mut self, plural: &'static str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.watchers.retain(|watcher| {
            let concerned = watcher.plural == plural && is_selected(object, &watcher.namespace, &watcher.selector);
            !concerned || watcher.chunks.send(Ok(line(&event))).is_ok()
        });
        self.history.push((self.version, plural, event));
    }
}

fn answer(world: &Mutex<World>, request: &Request<Incoming>) -> Response<Body> {
    let parts: Vec<_> = request.uri().path().trim_matches('/').split('/').collect();
    let query: HashMap<_, _> =
        request.uri().query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('=')).collect();
    let plural = PLURALS.into_iter().find(|plural| parts.last() == Some(plural));
    let namespace =
        parts.iter().position(|part| *part == "namespaces").and_then(|at| parts.get(at + 1)).map(|n| (*n).to_owned());
    let selector = query.get("labelSelector").or_else(|| query.get("fieldSelector"));
    let selector = selector.map(|selector| selector.replace("%2F", "/").replace("%3D", "="));
    let mut world = world.lock();
    world.asked.insert(format!("{}?{}", request.uri().path(), selector.as_deref().unwrap_or("")));
    let Some(plural) = plural.filter(|_| request.method() == http::Method::GET) else { return refusal(405) };
    if let Some(&code) = world.refused.get(plural) {
        return refusal(code);
    }
    if query.contains_key("watch") {
        let from = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        return watch(&mut world, plural, namespace, selector, from);
    }
    *world.lists.entry(plural).or_default() += 1;
    let skip: usize = query.get("continue").and_then(|token| token.parse().ok()).unwrap_or(0);
    if skip > 0 && world.breaks_lists {
        return refusal(500);
    }
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let limit = world.page.map_or(limit, |page| page.min(limit));
    let all: Vec<_> = world.objects.get(plural).into_iter().flat_map(BTreeMap::values).collect();
    let all: Vec<_> = all.into_iter().filter(|object| is_selected(object, &namespace, &selector)).collect();
    let items: Vec<_> = all.iter().skip(skip).take(limit).collect();
    let mut metadata = json!({"resourceVersion": world.version.to_string()});
    if skip + items.len() < all.len() {
        metadata["continue"] = json!((skip + items.len()).to_string());
    }
    json_answer(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

fn watch(
    world: &mut World,
    plural: &'static str,
    namespace: Option<String>,
    selector: Option<String>,
    from: u64,
) -> Response<Body> {
    *world.watches.entry(plural).or_default() += 1;
    if from < world.compacted {
        return refusal(410);
    }
    let (chunks, receiver) = mpsc::unbounded_channel();
    for (version, of, event) in &world.history {
        if *version > from && *of == plural && is_selected(&event["object"], &namespace, &selector) {
            let _ = chunks.send(Ok(line(event)));
        }
    }
    if !world.ends_watches {
        world.watchers.push(Watcher { plural, namespace, selector, chunks });
    }
    let stream = Stream { receiver, rest: Bytes::new(), trickle: world.trickle };
    Response::new(BodyExt::boxed(stream))
}

/// The body of a watch.
struct Stream {
    receiver: mpsc::UnboundedReceiver<Chunk>,
    rest: Bytes,
    trickle: bool,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.rest.is_empty() {
            match std::task::ready!(self.receiver.poll_recv(cx)) {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let n = if self.trickle { self.rest.len().min(7) } else { self.rest.len() };
        let chunk = self.rest.split_to(n);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

fn plural_of(object: &Value) -> &'static str {
    match object["kind"].as_str() {
        Some("Service") => "services",
        Some("EndpointSlice") => "endpointslices",
        Some("Secret") => "secrets",
        other => panic!("no such kind: {other:?}"),
    }
}

fn key_of(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// Selectors are of the form "has this label", or `metadata.name=` and a name.
fn is_selected(object: &Value, namespace: &Option<String>, selector: &Option<String>) -> bool {
    let meta = &object["metadata"];
    namespace.as_ref().is_none_or(|namespace| meta["namespace"] == **namespace)
        && selector.as_ref().is_none_or(|selector| match selector.strip_prefix("metadata.name=") {
            Some(name) => meta["name"] == name,
            None => meta["labels"].get(selector).is_some(),
        })
}
