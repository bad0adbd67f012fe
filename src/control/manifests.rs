//! The source `manifests:DIR`: the same objects as in a cluster, from files.
//!
//! A file counts as a whole: one that cannot be read or does not parse keeps its last good state and is reported with
//! its line. A directory that cannot be read keeps everything.

mod folder;
mod parse;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use self::folder::{Finding, Folder};
pub use self::parse::{Fault, parse};
use super::index::Scope;
use super::objects::Object;
use super::publish::Update;
use crate::core::facts::{ObjectRef, Problem};

/// Time between two looks at the files. A change that replaces a file is seen by the next look, one that is written
/// into a file by the one after.
const LOOK_EVERY: Duration = Duration::from_millis(40);

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
    let mut folder = Folder::new(dir);
    loop {
        // A file system that hangs must not hang the admin port with it.
        let look = tokio::task::spawn_blocking(move || {
            let findings = folder.look();
            (folder, findings)
        });
        let Ok((returned, findings)) = look.await else { return Ok(()) };
        folder = returned;
        match findings {
            Ok(findings) => {
                for finding in findings {
                    for update in updates_of(feed, finding, &namespaces) {
                        updates.send(update).await?;
                    }
                }
                updates.send(Update::Trouble(place.clone(), None)).await?;
                updates.send(Update::InStep(feed)).await?;
            }
            Err(message) => {
                let problem = problem(&place, "directory", format!("{message}; what was read last still counts"));
                updates.send(Update::Trouble(place.clone(), Some(problem))).await?;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
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
