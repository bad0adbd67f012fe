//! What can go wrong with the API server, as a message that says what to do. Nothing of an answer's content is in it.

use std::error::Error;
use std::time::Duration;

use super::plural;
use crate::control::objects::Kind;

/// The longest text of an error that is passed on.
const TEXT_MAX: usize = 300;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    /// The status of the answer, if there was one.
    code: Option<u16>,
}

impl Failure {
    pub(super) fn client(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                text: cut(&format!("{} {}: {}", status.code, status.reason, status.message)),
                code: Some(status.code),
            },
            error => Self { text: cut(&chain(&error)), code: None },
        }
    }

    pub(super) fn request(error: kube::core::request::Error) -> Self {
        Self { text: cut(&chain(&error)), code: None }
    }

    pub(super) fn silent(what: &str, after: Duration) -> Self {
        Self { text: format!("no answer to a {what} for {} s", after.as_secs()), code: None }
    }

    pub(super) fn unversioned() -> Self {
        Self { text: "a list without resourceVersion".into(), code: None }
    }

    /// The answer has another form than expected. What exactly is not said of Secrets: the parser repeats values.
    pub(super) fn form(kind: Kind, error: &serde_json::Error) -> Self {
        let text = match kind {
            Kind::Secret => "an answer that does not have the form of Secrets".into(),
            Kind::Service | Kind::EndpointSlice => cut(&format!("an answer that cannot be read: {error}")),
        };
        Self { text, code: Some(0) }
    }

    /// Whether going on from the same version would only fail again: the server answered, and did not ask for time.
    pub(super) fn needs_list(&self) -> bool {
        !matches!(self.code, None | Some(401 | 403 | 429 | 500..))
    }

    pub(super) fn message(&self, kind: Kind) -> String {
        let (plural, text) = (plural(kind), &self.text);
        match self.code {
            Some(403) => {
                let group = match kind {
                    Kind::Service | Kind::Secret => "\"\"",
                    Kind::EndpointSlice => "discovery.k8s.io",
                };
                format!(
                    "{text}; grant the router's ServiceAccount the verbs list and watch on {plural} (API group {group})"
                )
            }
            Some(401) => format!("{text}; the credentials for the API server are not valid (any more)"),
            _ => format!("{plural} cannot be followed: {text}; what is known stays in use"),
        }
    }
}

/// An error with its causes: the outermost one often says nothing.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
