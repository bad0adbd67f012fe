//! The source `kubernetes`: list, then watch, one kind and namespace at a time; nothing is ever written.
//!
//! Holds:
//! - a list counts only when it is complete, so one that fails half-way changes nothing;
//! - a watch is taken up where the last one ended, and after `410 Gone` everything is listed anew;
//! - every request and every silence has a deadline, every failure a pause that grows and is never the same twice;
//! - nothing of an answer is logged: it may hold Secrets. (The client's own typed requests do log it, which is why
//!   they are not used here.)
//!
//! Watches are short ([`WATCH_SECONDS`]): the end of one proves that everything was said, so that a quiet cluster and
//! a dead one can be told apart.

mod failure;

use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{Request, WatchEvent};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;
use tokio::time::{Instant, timeout};

use self::failure::Failure;
use super::backoff::Backoff;
use super::courtesy;
use super::facts::{ENDPOINT_LABEL, SERVICE_LABEL};
use super::index::Scope;
use super::objects::{EndpointSlice, Kind, Meta, Object, Secret, Service};
use super::publish::Update;
use crate::core::facts::{ObjectRef, Problem};

/// How long a watch is asked to last.
const WATCH_SECONDS: u32 = 60;
/// How long after its time the end of a watch may come.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// The longest that one page of a list, or the beginning of a watch, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connecting to the API server may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a first failure, and the longest one.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LONGEST: Duration = Duration::from_secs(15);
/// Objects of one page.
const PAGE: u32 = 500;

/// A client that leaves retries to us.
pub(super) fn client(mut config: kube::Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    Client::try_from(config)
}

/// One kind in one namespace, or in all; or one object.
pub(super) struct Watch {
    client: Client,
    kind: Kind,
    namespace: Option<String>,
    name: Option<String>,
}

/// How a watch ended.
enum End {
    /// The connection is over, for whatever reason.
    Over,
    /// The server no longer knows what came after our version.
    Gone,
    /// Something is wrong.
    Failed(Failure),
}

/// A kind as it comes from the API server.
pub(super) trait Watched: DeserializeOwned + Clone + Send + 'static {
    fn meta(&self) -> &Meta;
}

/// A kind that endpoints are made of.
trait Discovered: Watched {
    fn into_object(self) -> Object;
}

/// Who is told what a watch sees. An error says that nobody listens any more.
pub(super) trait Audience<K>: Sync {
    type Gone: Send;

    /// These are all objects that there are.
    fn reset(&self, objects: Vec<K>) -> impl Future<Output = Result<(), Self::Gone>> + Send;
    /// An object is new or was changed.
    fn apply(&self, object: K) -> impl Future<Output = Result<(), Self::Gone>> + Send;
    /// An object is gone.
    fn delete(&self, object: K) -> impl Future<Output = Result<(), Self::Gone>> + Send;
    /// Everything there was to say until now has been said.
    fn in_step(&self) -> impl Future<Output = Result<(), Self::Gone>> + Send;
    /// The API server answers.
    fn recovered(&self) -> impl Future<Output = Result<(), Self::Gone>> + Send;
    /// It does not, for this reason.
    fn failed(&self, message: String) -> impl Future<Output = Result<(), Self::Gone>> + Send;
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<K> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<K>>,
}

impl Watch {
    pub(super) fn new(client: Client, kind: Kind, namespace: Option<String>) -> Self {
        Self { client, kind, namespace, name: None }
    }

    /// Of one object alone, so that the right to see that one is enough.
    pub(super) fn one(client: Client, kind: Kind, object: &ObjectRef) -> Self {
        let (namespace, name) = (object.namespace.to_string(), object.name.to_string());
        Self { client, kind, namespace: Some(namespace), name: Some(name) }
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> String {
        let plural = plural(self.kind);
        match &self.namespace {
            None => format!("kubernetes {plural}"),
            Some(namespace) => format!("kubernetes {plural} in {namespace}"),
        }
    }

    /// Watches until nobody listens any more.
    pub(super) async fn run(self, feed: usize, updates: Sender<Update>) -> Result<(), SendError<Update>> {
        let scope = Scope { feed, part: self.name().into(), is_trusted: false };
        let teller = Teller { scope, updates };
        match self.kind {
            Kind::Service => self.follow::<Service, _>(&teller).await,
            Kind::EndpointSlice => self.follow::<EndpointSlice, _>(&teller).await,
            Kind::Secret => self.follow::<Secret, _>(&teller).await,
        }
    }

    /// Tells an audience of objects of this form, until nobody listens any more.
    pub(super) async fn follow<K: Watched, A: Audience<K>>(&self, teller: &A) -> Result<(), A::Gone> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_LONGEST);
        let mut version = None;
        loop {
            let (mut at, was_listed) = match version.take() {
                Some(at) => (at, false),
                None => match self.list::<K>().await {
                    Ok((objects, at)) => {
                        teller.reset(objects).await?;
                        teller.recovered().await?;
                        teller.in_step().await?;
                        (at, true)
                    }
                    Err(failure) => {
                        teller.failed(failure.message(self.kind)).await?;
                        backoff.wait().await;
                        continue;
                    }
                },
            };
            let (start, begun_at) = (Instant::now(), at.clone());
            let end = self.watch::<K, A>(&mut at, teller).await?;
            let was_gone = matches!(end, End::Gone);
            let lasted = start.elapsed() >= Duration::from_secs(WATCH_SECONDS.into());
            match end {
                End::Over if lasted => teller.in_step().await?,
                End::Over => {}
                End::Gone => at.clear(),
                End::Failed(failure) => {
                    teller.failed(failure.message(self.kind)).await?;
                    if failure.needs_list() {
                        at.clear();
                    }
                }
            }
            // What it asked for has expired while the server was away, and now it is back: no reason for the long pause
            // that the failures before would cost.
            if was_gone && !was_listed {
                continue;
            }
            // A server that ends every watch at once must not be asked again and again without a pause.
            if lasted || (at != begun_at && !at.is_empty()) {
                backoff.reset();
            } else {
                backoff.wait().await;
            }
            version = Some(at).filter(|at| !at.is_empty());
        }
    }

    /// All objects and the version that they are of.
    async fn list<K: Watched>(&self) -> Result<(Vec<K>, String), Failure> {
        let mut objects = Vec::new();
        let mut params = ListParams {
            label_selector: self.selector(),
            field_selector: self.field_selector(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        loop {
            let request = Request::new(self.path()).list(&params).map_err(Failure::request)?;
            let text = timeout(ANSWER_TIMEOUT, self.client.request_text(request)).await;
            let text = text.map_err(|_| Failure::silent("list", ANSWER_TIMEOUT))?.map_err(Failure::client)?;
            let page: Page<K> = serde_json::from_str(&text).map_err(|error| Failure::form(self.kind, &error))?;
            objects.extend(page.items.into_iter().flatten());
            let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
            match (filled(page.metadata.continue_), filled(page.metadata.resource_version)) {
                (Some(token), _) => params.continue_token = Some(token),
                (None, Some(version)) => return Ok((objects, version)),
                (None, None) => return Err(Failure::unversioned()),
            }
        }
    }

    /// Watches from version `at` on, and moves it along.
    async fn watch<K: Watched, A: Audience<K>>(&self, at: &mut String, teller: &A) -> Result<End, A::Gone> {
        let params = WatchParams {
            label_selector: self.selector(),
            field_selector: self.field_selector(),
            timeout: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let request = match Request::new(self.path()).watch(&params, at) {
            Ok(request) => request,
            Err(error) => return Ok(End::Failed(Failure::request(error))),
        };
        let events = match timeout(ANSWER_TIMEOUT, self.client.request_events::<K>(request)).await {
            Ok(Ok(events)) => events,
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => return Ok(End::Gone),
            Ok(Err(error)) => return Ok(End::Failed(Failure::client(error))),
            Err(_) => return Ok(End::Failed(Failure::silent("watch", ANSWER_TIMEOUT))),
        };
        teller.recovered().await?;
        let mut events = std::pin::pin!(events);
        let silence = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
        loop {
            let event = match timeout(silence, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(None) => return Ok(End::Over),
                Ok(Some(Err(kube::Error::SerdeError(error)))) => {
                    return Ok(End::Failed(Failure::form(self.kind, &error)));
                }
                Ok(Some(Err(error))) => return Ok(End::Failed(Failure::client(error))),
                Err(_) => return Ok(End::Failed(Failure::silent("watch", silence))),
            };
            // News come in heaps, and each was parsed.
            courtesy::give_way();
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    move_to(at, object.meta());
                    teller.apply(object).await?;
                    teller.in_step().await?;
                }
                WatchEvent::Deleted(object) => {
                    move_to(at, object.meta());
                    teller.delete(object).await?;
                    teller.in_step().await?;
                }
                WatchEvent::Bookmark(bookmark) => {
                    *at = bookmark.metadata.resource_version;
                    teller.in_step().await?;
                }
                WatchEvent::Error(status) if status.code == 410 => return Ok(End::Gone),
                WatchEvent::Error(status) => return Ok(End::Failed(Failure::client(kube::Error::Api(status)))),
            }
        }
    }

    fn path(&self) -> String {
        let root = match self.kind {
            Kind::Service | Kind::Secret => "/api/v1",
            Kind::EndpointSlice => "/apis/discovery.k8s.io/v1",
        };
        let plural = plural(self.kind);
        match &self.namespace {
            None => format!("{root}/{plural}"),
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        }
    }

    /// Services cannot be narrowed down: their names may be in the selector, which the API server does not search.
    fn selector(&self) -> Option<String> {
        match self.kind {
            _ if self.name.is_some() => None,
            Kind::Service => None,
            Kind::EndpointSlice => Some(SERVICE_LABEL.into()),
            Kind::Secret => Some(ENDPOINT_LABEL.into()),
        }
    }

    fn field_selector(&self) -> Option<String> {
        self.name.as_ref().map(|name| format!("metadata.name={name}"))
    }
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Secret => "secrets",
    }
}

fn move_to(at: &mut String, meta: &Meta) {
    if let Some(version) = meta.resource_version.as_ref().filter(|version| !version.is_empty()) {
        at.clone_from(version);
    }
}

/// Speaks to the publisher for one watch.
struct Teller {
    scope: Scope,
    updates: Sender<Update>,
}

impl Teller {
    async fn trouble(&self, problem: Option<Problem>) -> Result<(), SendError<Update>> {
        self.updates.send(Update::Trouble(self.scope.part.clone(), problem)).await
    }
}

impl<K: Discovered> Audience<K> for Teller {
    type Gone = SendError<Update>;

    async fn reset(&self, objects: Vec<K>) -> Result<(), Self::Gone> {
        let objects = objects.into_iter().map(K::into_object).collect();
        self.updates.send(Update::Reset(self.scope.clone(), objects)).await
    }

    async fn apply(&self, object: K) -> Result<(), Self::Gone> {
        self.updates.send(Update::Apply(self.scope.clone(), object.into_object())).await
    }

    async fn delete(&self, object: K) -> Result<(), Self::Gone> {
        self.updates.send(Update::Delete(self.scope.clone(), object.into_object().key())).await
    }

    async fn in_step(&self) -> Result<(), Self::Gone> {
        self.updates.send(Update::InStep(self.scope.feed)).await
    }

    async fn recovered(&self) -> Result<(), Self::Gone> {
        self.trouble(None).await
    }

    async fn failed(&self, message: String) -> Result<(), Self::Gone> {
        let object = ObjectRef { namespace: "".into(), name: self.scope.part.clone() };
        self.trouble(Some(Problem { kind: "Source", object, field: "connection".into(), message })).await
    }
}

macro_rules! discovered {
    ($($kind:ident)*) => {$(
        impl Watched for $kind {
            fn meta(&self) -> &Meta {
                &self.metadata
            }
        }

        impl Discovered for $kind {
            fn into_object(self) -> Object {
                Object::$kind(Box::new(self))
            }
        }
    )*};
}

discovered!(Service EndpointSlice Secret);
