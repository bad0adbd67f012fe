//! The source `manifests:DIR`: the same objects as in a cluster, from files.
//!
//! A file counts as a whole: one that cannot be read or does not parse keeps its last good state and is reported with
//! its line. A directory that cannot be read keeps everything.

mod folder;
mod parse;
mod watcher;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use self::folder::Finding;
pub use self::parse::{Fault, parse};
use self::watcher::Look;
use super::index::Scope;
use super::objects::Object;
use super::publish::Update;
use crate::core::facts::{ObjectRef, Problem};

/// Time after which looking is begun anew where it came to an end.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Which namespaces are looked at; none named is all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces(pub(super) Arc<[String]>);

impl Namespaces {
    fn hold(&self, object: &Object) -> bool {
        self.0.is_empty() || self.0.iter().any(|namespace| *namespace == *object.meta().object().namespace)
    }
}

/// Reads a directory again and again.
pub(super) async fn follow(
    feed: usize,
    dir: PathBuf,
    namespaces: Namespaces,
    updates: Sender<Update>,
) -> Result<(), SendError<Update>> {
    let place: Arc<str> = dir.display().to_string().into();
    let mut trouble = None;
    loop {
        let ended = match watcher::watch(dir.clone()) {
            Ok(mut looks) => {
                while let Some(look) = looks.recv().await {
                    tell(feed, &place, look, &mut trouble, &namespaces, &updates).await?;
                }
                "the reader crashed".to_owned()
            }
            Err(error) => {
                format!("no thread could be started for it ({error}): allow more (pids.max, TasksMax=, ulimit -u)")
            }
        };
        // Looking begins anew; nothing is lost but the memory of the last look.
        let look = Err(format!("cannot be read: {ended}"));
        tell(feed, &place, look, &mut trouble, &namespaces, &updates).await?;
        tokio::time::sleep(RESTART_AFTER).await;
    }
}

async fn tell(
    feed: usize,
    place: &Arc<str>,
    look: Look,
    trouble: &mut Option<String>,
    namespaces: &Namespaces,
    updates: &Sender<Update>,
) -> Result<(), SendError<Update>> {
    match look {
        Ok(findings) => {
            for finding in findings {
                for update in updates_of(feed, finding, namespaces) {
                    updates.send(update).await?;
                }
            }
            if trouble.take().is_some() {
                updates.send(Update::Trouble(place.clone(), None)).await?;
            }
            updates.send(Update::InStep(feed)).await
        }
        Err(message) if trouble.as_ref() == Some(&message) => Ok(()),
        Err(message) => {
            let problem = problem(place, "directory", format!("{message}; what was read last still counts"));
            *trouble = Some(message);
            updates.send(Update::Trouble(place.clone(), Some(problem))).await
        }
    }
}

/// Manifests that are at hand as text, for the quickstart: said once, in step ever after.
pub(super) async fn recite(
    feed: usize,
    name: Arc<str>,
    text: Arc<str>,
    namespaces: Namespaces,
    updates: Sender<Update>,
) -> Result<(), SendError<Update>> {
    for update in updates_of(feed, Finding::Content { file: name, text: text.to_string() }, &namespaces) {
        updates.send(update).await?;
    }
    loop {
        updates.send(Update::InStep(feed)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn updates_of(feed: usize, finding: Finding, namespaces: &Namespaces) -> Vec<Update> {
    let scope = |file: &Arc<str>| Scope { feed, part: file.clone(), is_trusted: true };
    match finding {
        Finding::Content { file, text } => match parse(&text, file.ends_with(".json")) {
            Ok(mut objects) => {
                objects.retain(|object| namespaces.hold(object));
                vec![Update::Reset(scope(&file), objects), Update::Trouble(file, None)]
            }
            Err(fault) => {
                let message = format!("{}; what it said last still counts", fault.message);
                let problem = problem(&file, &format!("line {}", fault.line), message);
                vec![Update::Trouble(file, Some(problem))]
            }
        },
        Finding::Gone { file } => vec![Update::Reset(scope(&file), Vec::new()), Update::Trouble(file, None)],
        Finding::Unreadable { file, message } => {
            let problem = problem(&file, "content", format!("{message}; what it said last still counts"));
            vec![Update::Trouble(file, Some(problem))]
        }
    }
}

fn problem(path: &Arc<str>, field: &str, message: String) -> Problem {
    let object = ObjectRef { namespace: "".into(), name: path.clone() };
    Problem { kind: "File", object, field: field.into(), message }
}
