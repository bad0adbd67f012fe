//! Certificates from Secrets: each is watched alone, so that the right to get, list and watch that one is enough.
//!
//! Holds: a Secret that is gone, and an API server that is out of reach, change nothing about what clients are shown.
//! Readiness waits until every Secret was looked for, and until there is any certificate at all.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use parking_lot::Mutex;
use serde::Deserialize;

use super::desk::Desk;
use super::pair::Pair;
use crate::control::kube::{Audience, Watch, Watched};
use crate::control::objects::Meta;

/// `v1/Secret` with a certificate, as cert-manager and `kubectl create secret tls` make it, or as Azure ML has it.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Secret {
    metadata: Meta,
    data: Option<Data>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Data {
    #[serde(rename = "tls.crt")]
    tls_crt: Option<ByteString>,
    #[serde(rename = "tls.key")]
    tls_key: Option<ByteString>,
    #[serde(rename = "cert.pem")]
    cert_pem: Option<ByteString>,
    #[serde(rename = "key.pem")]
    key_pem: Option<ByteString>,
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

impl Secret {
    fn pair(&self) -> Result<Pair, String> {
        let pair = self.data.as_ref().and_then(|data| {
            let as_kubernetes = data.tls_crt.as_ref().zip(data.tls_key.as_ref());
            as_kubernetes.or_else(|| data.cert_pem.as_ref().zip(data.key_pem.as_ref()))
        });
        let (chain, key) = pair.ok_or("the Secret has neither tls.crt and tls.key nor cert.pem and key.pem")?;
        Pair::read(&chain.0, &key.0)
    }
}

/// What holds readiness back until a Secret was looked for, by place.
pub(super) type Blocks<B> = Arc<Mutex<Vec<Block<B>>>>;

/// One of them. `B` blocks readiness until it is dropped.
#[derive(Debug)]
pub(super) struct Block<B> {
    pub(super) place: usize,
    pub(super) guard: Option<B>,
    pub(super) is_known: bool,
}

/// Follows the Secret of a place for ever.
pub(super) async fn follow<B: Send>(watch: Watch, place: usize, desk: Arc<Desk>, blocks: Blocks<B>) {
    let listener = Listener { place, desk, blocks, found: Mutex::new(None) };
    let Err(never) = watch.follow::<Secret, _>(&listener).await else { return };
    match never {}
}

/// Takes in what is said of one Secret.
struct Listener<B> {
    place: usize,
    desk: Arc<Desk>,
    blocks: Blocks<B>,
    /// What is wrong with what was said last; `None` before anything was.
    found: Mutex<Option<Result<(), String>>>,
}

impl<B> Listener<B> {
    fn hear(&self, secret: Option<&Secret>) {
        let pair = secret.map_or_else(|| Err("there is no such Secret".to_owned()), Secret::pair);
        let found = match pair {
            Ok(pair) => {
                self.desk.take(self.place, pair);
                Ok(())
            }
            Err(problem) => {
                self.desk.complain(self.place, problem.clone());
                Err(problem)
            }
        };
        *self.found.lock() = Some(found);
        let mut blocks = self.blocks.lock();
        let mine = blocks.iter_mut().filter(|block| block.place == self.place);
        mine.for_each(|block| block.is_known = true);
        if self.desk.has_any() {
            blocks.iter_mut().filter(|block| block.is_known).for_each(|block| block.guard = None);
        }
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
        Ok(())
    }

    async fn recovered(&self) -> Result<(), Infallible> {
        match &*self.found.lock() {
            Some(Ok(())) => self.desk.solve(self.place),
            Some(Err(problem)) => self.desk.complain(self.place, problem.clone()),
            None => {}
        }
        Ok(())
    }

    async fn failed(&self, message: String) -> Result<(), Infallible> {
        self.desk.complain(self.place, message);
        Ok(())
    }
}
