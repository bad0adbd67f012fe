//! Keys from a Secret, watched alone, so that the right to get, list and watch that one is enough.
//!
//! Holds: a Secret that is gone, and an API server that is out of reach, change nothing about the keys in use but that
//! they get older. They are as young as the last time that the API server was known to have told everything.

use std::convert::Infallible;
use std::fmt;

use k8s_openapi::ByteString;
use parking_lot::Mutex;
use serde::Deserialize;

use super::desk::Desk;
use crate::control::kube::{Audience, Watch, Watched};
use crate::control::objects::Meta;

/// `v1/Secret` with a key set.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Secret {
    metadata: Meta,
    data: Option<Data>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Data {
    #[serde(rename = "jwks.json")]
    jwks: Option<ByteString>,
    #[serde(rename = "keys.json")]
    keys: Option<ByteString>,
}

/// Without what is in it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.metadata.object())
    }
}

impl Watched for Secret {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// Follows the Secret for ever. `block` is dropped when it was looked for, with whatever result.
pub(super) async fn follow<B: Send>(watch: Watch, desk: Desk, block: B) {
    let listener = Listener { desk, block: Mutex::new(Some(block)), found: Mutex::default() };
    let Err(never) = watch.follow::<Secret, _>(&listener).await else { return };
    match never {}
}

/// Takes in what is said of the Secret.
struct Listener<B> {
    desk: Desk,
    block: Mutex<Option<B>>,
    /// What is wrong with what was said last; `None` before anything was.
    found: Mutex<Option<Result<(), String>>>,
}

impl Secret {
    fn text(&self) -> Result<&[u8], String> {
        let text = self.data.as_ref().and_then(|data| data.jwks.as_ref().or(data.keys.as_ref()));
        text.map(|text| text.0.as_slice()).ok_or_else(|| "has neither jwks.json nor keys.json".to_owned())
    }
}

impl<B> Listener<B> {
    fn hear(&self, secret: Option<&Secret>) {
        let text = secret.map_or_else(|| Err("is not there".to_owned()), Secret::text);
        let found = text.and_then(|text| self.desk.take(text)).map(drop);
        if let Err(problem) = &found {
            self.desk.complain(problem);
        }
        *self.found.lock() = Some(found);
        *self.block.lock() = None;
    }
}

impl<B: Send> Audience<Secret> for Listener<B> {
    type Gone = Infallible;

    async fn reset(&self, objects: Vec<Secret>) -> Result<(), Infallible> {
        self.hear(objects.first());
        Ok(())
    }

    async fn apply(&self, object: Secret) -> Result<(), Infallible> {
        self.hear(Some(&object));
        Ok(())
    }

    async fn delete(&self, _: Secret) -> Result<(), Infallible> {
        self.hear(None);
        Ok(())
    }

    async fn in_step(&self) -> Result<(), Infallible> {
        if matches!(*self.found.lock(), Some(Ok(()))) {
            self.desk.confirm();
        }
        Ok(())
    }

    async fn recovered(&self) -> Result<(), Infallible> {
        match &*self.found.lock() {
            Some(Ok(())) => self.desk.solve(),
            Some(Err(problem)) => self.desk.complain(problem),
            None => {}
        }
        Ok(())
    }

    async fn failed(&self, message: String) -> Result<(), Infallible> {
        self.desk.complain(&message);
        *self.block.lock() = None;
        Ok(())
    }
}
