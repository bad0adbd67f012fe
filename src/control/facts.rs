//! From Kubernetes objects to facts: parsed and validated once, so that nothing can be wrong later.
//!
//! Every function here takes one object and returns what it says and what is wrong with it. A problem names object,
//! field, value and what is allowed, and never touches another object.

pub mod annotations;
mod authorities;
mod names;
mod secrets;
mod services;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::annotations::Draft;
pub(super) use self::authorities::check as check_authorities;
pub(super) use self::names::is_name;
pub use self::secrets::parse_secret;
pub use self::services::parse_service;
pub(super) use self::slices::is_usable;
pub use self::slices::parse_slice;
use crate::core::facts::{DeploymentFacts, ObjectRef, Problem, SecretFacts, SliceFacts};

/// The label of the endpoint's name, on Services, on their selectors, and on Secrets.
pub const ENDPOINT_LABEL: &str = "ml.azure.com/endpoint-name";
/// The label of the deployment's name.
pub const DEPLOYMENT_LABEL: &str = "ml.azure.com/deployment-name";
/// The label that marks v1 services, with the value `true`.
pub const V1_LABEL: &str = "isazuremlapp";
/// The label of a v1 service's name.
pub const V1_NAME_LABEL: &str = "azuremlappname";
/// The label that says which Service a slice belongs to.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The most problems of one object that are told one by one.
const PROBLEMS_MAX: usize = 16;
/// The most characters of a wrong value that a message repeats.
const SHOWN_MAX: usize = 80;

/// What one object says, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub said: Said,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// What an object says; nothing when it does not concern the router or is wrong as a whole.
#[derive(Clone, Debug)]
pub enum Said {
    /// A Service.
    Deployment(Option<Deployment>),
    /// An EndpointSlice.
    Slice(Option<Arc<SliceFacts>>),
    /// A Secret.
    Secret(Option<Arc<SecretFacts>>),
}

/// A deployment with what is needed to parse the next version of its Service.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The facts.
    pub facts: Arc<DeploymentFacts>,
    /// The last good values of its annotations.
    pub draft: Arc<Draft>,
}

impl Parsed {
    /// Whether there is nothing to remember about the object.
    pub fn is_void(&self) -> bool {
        let silent = match &self.said {
            Said::Deployment(said) => said.is_none(),
            Said::Slice(said) => said.is_none(),
            Said::Secret(said) => said.is_none(),
        };
        silent && self.problems.is_empty()
    }
}

/// Reads annotations that are no object's, and says what is wrong with them.
pub(super) fn read_annotations(
    kind: &'static str,
    object: &ObjectRef,
    notes: &BTreeMap<String, String>,
) -> (Draft, Vec<Problem>) {
    let mut reporter = Reporter::new(kind, object);
    let draft = annotations::read(notes, None, &mut reporter);
    (draft, reporter.finish())
}

/// Gathers the problems of one object.
struct Reporter<'a> {
    kind: &'static str,
    object: &'a ObjectRef,
    problems: Vec<Problem>,
    untold: usize,
}

impl<'a> Reporter<'a> {
    fn new(kind: &'static str, object: &'a ObjectRef) -> Self {
        Self { kind, object, problems: Vec::new(), untold: 0 }
    }

    fn report(&mut self, field: impl Into<String>, message: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { kind: self.kind, object: self.object.clone(), field: field.into(), message });
        } else {
            self.untold += 1;
        }
    }

    fn finish(mut self) -> Vec<Problem> {
        if self.untold > 0 {
            let message = format!("{} more problems of this object are not shown", self.untold);
            self.problems.push(Problem {
                kind: self.kind,
                object: self.object.clone(),
                field: "(all)".into(),
                message,
            });
        }
        self.problems
    }
}

/// A value as messages repeat it: quoted, escaped, cut.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", value.get(..end).unwrap_or_default()),
        None => format!("{value:?}"),
    }
}
