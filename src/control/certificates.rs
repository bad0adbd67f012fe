//! The certificates that clients are shown, and those that theirs are checked against: where they come from, which of
//! them are good, and which one is in use.
//!
//! Owner: the app. Places (pairs of files, Secrets) are said what they hold again and again; what is good takes the
//! place of what was there before, for handshakes that begin from then on.
//!
//! Holds: a certificate that cannot be used, or that does not fit its key, changes nothing but what is reported about
//! it; nothing of a private key is ever in a message.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use parking_lot::Mutex;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;

use super::config::{ClientAuth, Tls};
use super::files::{CHAIN_NAMES, Files, KEY_NAMES, Place, look_again};
use super::kube::{self, Watch};
use super::objects::Kind;
use crate::core::certificates::CertificateState;
use crate::core::facts::ObjectRef;
use crate::core::vitals::Vitals;

use self::clients::{Authorities, Clients};
use self::desk::Desk;
use self::pair::Pair;
use self::secrets::Block;

mod clients;
mod desk;
mod pair;
mod secrets;
mod shown;

/// What the lines of the trace log are filed under.
const TARGET: &str = "scorefront::certificates";

/// See the head of the file.
#[derive(Debug)]
pub struct Certificates {
    desk: Arc<Desk>,
    files: Vec<Files<2>>,
    /// The Secrets; their places are after those of the files.
    secrets: Vec<ObjectRef>,
    /// The file of the authorities for clients, with its place.
    authorities: Option<(usize, Files<1>, Arc<Clients>)>,
    auth: ClientAuth,
}

impl Certificates {
    /// Reads the files that are configured.
    ///
    /// # Errors
    /// With what is wrong with one of them: at start there is nothing to go on with instead.
    pub fn open(tls: &Tls, vitals: Arc<Vitals>) -> Result<Self, String> {
        let mut sources: Vec<_> = tls.pairs().map(|(own, _)| format!("file {}", own.display())).collect();
        sources.extend(tls.secrets.iter().map(|secret| format!("secret {secret}")));
        let pairs = sources.len();
        sources.extend(tls.client_ca.iter().map(|file| format!("client-ca {}", file.display())));
        *vitals.certificates.lock() = sources.into_iter().map(CertificateState::new).collect();
        let desk = Arc::new(Desk::new(pairs, vitals));
        let mut files = Vec::new();
        for (place, (own, key)) in tls.pairs().enumerate() {
            let named = |problem| format!("--tls-cert {}, --tls-key {}: {problem}", own.display(), key.display());
            let mut pair = Files::new([Place::file_or_folder(own, CHAIN_NAMES), Place::file_or_folder(key, KEY_NAMES)]);
            let [own, key] = pair.read().map_err(named)?;
            desk.take(place, Pair::read(&own, &key).map_err(named)?);
            files.push(pair);
        }
        let mut authorities = None;
        if let Some(file) = &tls.client_ca {
            let named = |problem| format!("--client-ca {}: {problem}", file.display());
            let mut file = Files::new([Place::only_file(file)]);
            let [text] = file.read().map_err(named)?;
            let read = Authorities::read(&text, tls.client_auth).map_err(named)?;
            desk.settle(pairs, &read.first.0, &read.first.1);
            authorities = Some((pairs, file, Arc::new(Clients::new(&read, tls.client_auth))));
        }
        Ok(Self { desk, files, secrets: tls.secrets.clone(), authorities, auth: tls.client_auth })
    }

    /// Chooses what a client is shown, always among the present ones.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.desk.shown()
    }

    /// Checks what clients show, always against the present authorities. `None` where they are not asked for anything.
    pub fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.authorities.as_ref().map(|(_, _, clients)| clients.clone() as Arc<dyn ClientCertVerifier>)
    }

    /// Whether there are Secrets to be followed.
    pub fn need_cluster(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Begins to follow files and Secrets, the latter where `cluster` says; what comes back goes on for ever. `block`
    /// makes what holds readiness back until a Secret was looked for.
    ///
    /// # Errors
    /// Where there is no way to the API server.
    pub fn follow<B: Send + 'static>(
        mut self,
        cluster: Option<::kube::Config>,
        block: impl Fn(&str) -> B,
    ) -> Result<impl Future<Output = ()> + Send + 'static, String> {
        let mut watches = Vec::new();
        if let Some(config) = cluster {
            let client =
                kube::client(config).map_err(|error| format!("tls-secret: no way to the API server: {error}"))?;
            let secrets = std::mem::take(&mut self.secrets);
            let places = secrets.into_iter().enumerate().map(|(n, secret)| (self.files.len() + n, secret));
            let places: Vec<_> = places.collect();
            let guard = |place: usize, secret: &ObjectRef| {
                let guard = Some(block(&format!("the certificate of secret {secret}")));
                Block { place, guard, is_known: false }
            };
            let blocks = Arc::new(Mutex::new(places.iter().map(|(place, secret)| guard(*place, secret)).collect()));
            for (place, secret) in places {
                let watch = Watch::one(client.clone(), Kind::Secret, &secret);
                watches.push(secrets::follow(watch, place, self.desk.clone(), blocks.clone()));
            }
        }
        Ok(async move {
            join(self.follow_files(), join_all(watches)).await;
        })
    }

    /// Looks at the files again and again.
    async fn follow_files(self) {
        look_again(self, Self::look).await;
        tracing::error!(target: TARGET, "the reader of certificates crashed; restart the router to renew them");
    }

    /// Takes up what is new in the files.
    fn look(&mut self) {
        for (place, files) in self.files.iter_mut().enumerate() {
            match files.look().map(|found| found.and_then(|[own, key]| Pair::read(&own, &key))) {
                None => {}
                Some(Ok(pair)) => self.desk.take(place, pair),
                Some(Err(problem)) => self.desk.complain(place, problem),
            }
        }
        let Some((place, file, clients)) = &mut self.authorities else { return };
        match file.look().map(|found| found.and_then(|[text]| Authorities::read(&text, self.auth))) {
            None => {}
            Some(Ok(read)) => {
                clients.replace(&read);
                self.desk.settle(*place, &read.first.0, &read.first.1);
            }
            Some(Err(problem)) => self.desk.complain(*place, problem),
        }
    }
}
