//! The key set that tokens are checked against, from one of three sources: a file, a URL, a Secret.
//!
//! Owner: the app. A source is looked at again and again; what it has arrives at the desk.
//!
//! Holds: a source that is away, empty or broken changes nothing but what is reported; the keys that were read last
//! count until they are older than `token-stale-max-ms`. Readiness waits for the first look at the source, whatever
//! comes of it: endpoints with keys need none of this.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::config::{Config, Tokens};
use super::kube::{self, Watch};
use super::objects::Kind;
use crate::core::token::KeySet;
use crate::core::vitals::Vitals;

use self::desk::Desk;
use self::fetch::Fetcher;
use self::file::KeyFile;
use self::url::Rounds;

mod desk;
mod fetch;
mod file;
mod secret;
mod url;

/// What the lines of the trace log are filed under.
const TARGET: &str = "scorefront::tokens";

/// Whether there is a usable key set. What a Secret holds is not asked.
///
/// # Errors
/// With what is wrong with it.
pub async fn check(tokens: &Tokens) -> Result<(), String> {
    if let Some(path) = &tokens.file {
        let named = |problem| format!("--token-jwks {}: {problem}", path.display());
        return file::read(path).and_then(|text| KeySet::read(&text)).map(drop).map_err(named);
    }
    let Some(url) = &tokens.url else { return Ok(()) };
    let named = |problem| format!("--token-jwks-url {url}: {problem}");
    let got = Fetcher::new(url.clone(), tokens).fetch(None).await.map_err(named)?;
    KeySet::read(got.text.as_deref().unwrap_or_default()).map(drop).map_err(named)
}

/// Whether the source is a Secret.
pub fn need_cluster(config: &Config) -> bool {
    config.tokens.secret.is_some()
}

/// Begins to follow the source, if there is one; what comes back goes on for ever. `block` makes what holds readiness
/// back until the source was looked at; `cluster` says where Secrets are.
///
/// # Errors
/// Where there is no way to the API server.
pub fn follow<B: Send + 'static>(
    config: &Config,
    vitals: Arc<Vitals>,
    cluster: Option<::kube::Config>,
    block: impl Fn(&str) -> B,
) -> Result<Option<BoxFuture<'static, ()>>, String> {
    let (tokens, stale_max) = (&config.tokens, config.limits.tokens.stale_max);
    let desk = |source: String| Desk::new(source, stale_max, vitals.clone());
    if let Some(path) = &tokens.file {
        let file = KeyFile::open(path, desk(format!("token-jwks {}", path.display())));
        return Ok(Some(file.follow().boxed()));
    }
    if let Some(url) = &tokens.url {
        let rounds = Rounds::new(Fetcher::new(url.clone(), tokens), tokens, desk(format!("token-jwks-url {url}")));
        return Ok(Some(rounds.follow(block("the keys for tokens, or word that they cannot be had")).boxed()));
    }
    let (Some(secret), Some(cluster)) = (&tokens.secret, cluster) else { return Ok(None) };
    let client =
        kube::client(cluster).map_err(|error| format!("token-jwks-secret: no way to the API server: {error}"))?;
    let watch = Watch::one(client, Kind::Secret, secret);
    let guard = block(&format!("the keys for tokens of secret {secret}"));
    Ok(Some(secret::follow(watch, desk(format!("token-jwks-secret {secret}")), guard).boxed()))
}
