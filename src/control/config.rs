//! The configuration: what the command line, the environment and a file say, as one checked value.
//!
//! Every setting is a row of [`settings::SETTINGS`], and is called the same everywhere: `--max-attempts`,
//! `SCOREFRONT_MAX_ATTEMPTS`, and `max-attempts:` in the file. A flag beats the environment, which beats the file,
//! which beats the default; a list is replaced as a whole. Reading stops at nothing: all problems are told at once.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::core::limits::Limits;
use crate::ops::access_log::LogTarget;
use crate::ops::logging::LogFormat;

use self::layers::Layers;

mod cgroup;
mod command;
mod cores;
mod file;
mod layers;
mod memory;
mod rows;
mod setting;
pub mod settings;
mod tls;
mod tokens;

pub use self::command::markdown;
pub use self::tls::{ClientAuth, Tls};
pub use self::tokens::{JwksUrl, Tokens};

/// Where Kubernetes objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The API server.
    Kubernetes,
    /// The YAML files of this directory.
    Manifests(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes => f.write_str("kubernetes"),
            Self::Manifests(directory) => write!(f, "manifests:{}", directory.display()),
        }
    }
}

/// See the head of the file. Holds no secrets; serialized, it is what `/debug/config` shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Addresses for clients.
    pub listen: Vec<SocketAddr>,
    /// TLS of clients.
    pub tls: Tls,
    /// Where the keys for tokens are.
    pub tokens: Tokens,
    /// Address of the admin port.
    pub admin: SocketAddr,
    /// Where objects come from.
    pub sources: Vec<Source>,
    /// Namespaces to look at; empty: all.
    pub namespaces: Vec<String>,
    /// How to reach the API server; `None`: as pods do, else as kubectl does.
    pub kubeconfig: Option<PathBuf>,
    /// Where the last good world is kept; `None`: nowhere.
    pub state_file: Option<PathBuf>,
    /// The oldest world that is served from it.
    pub state_max_age: Duration,
    /// A secret that its seals depend on.
    pub state_key_file: Option<PathBuf>,
    /// Threads that serve requests.
    pub workers: usize,
    /// Where the access log goes.
    pub access_log: LogTarget,
    /// Buffer of the access log for each worker.
    pub access_log_buffer_bytes: usize,
    /// How the trace log looks.
    pub log_format: LogFormat,
    /// Which lines the trace log has.
    pub log_level: String,
    /// How long new requests are still served after SIGTERM.
    pub drain_grace: Duration,
    /// How long running requests may take after that.
    pub drain_timeout: Duration,
    /// The most memory that the process may have before it turns new requests away, in bytes; 0: any number. `None`:
    /// nobody said, and the machine was not asked.
    pub memory_bytes_max: Option<u64>,
    /// Limits of the data path.
    pub limits: Limits,
}

impl Default for Config {
    /// `workers` is 0 here and `memory_bytes_max` is not known: they depend on the machine.
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
            tls: Tls::default(),
            tokens: Tokens::default(),
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            sources: vec![Source::Kubernetes],
            namespaces: Vec::new(),
            kubeconfig: None,
            state_file: None,
            state_max_age: Duration::from_millis(86_400_000),
            state_key_file: None,
            workers: 0,
            access_log: LogTarget::Stdout,
            access_log_buffer_bytes: 1 << 20,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            drain_grace: Duration::from_millis(5000),
            drain_timeout: Duration::from_millis(30_000),
            memory_bytes_max: None,
            limits: Limits::default(),
        }
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(settings::SETTINGS.len()))?;
        for setting in settings::SETTINGS {
            map.serialize_entry(setting.key, &setting.shown(self))?;
        }
        map.end()
    }
}

/// What the program was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// Route.
    Serve(Config),
    /// Validate configuration and objects, print what would be served, end.
    Check(Config),
    /// Route to sample replicas, all on loopback.
    Quickstart(Config),
}

/// Why there is no [`Invocation`].
#[derive(Debug)]
pub enum Stop {
    /// Help or version was asked for, or the command line makes no sense; clap knows what to print.
    Shown(clap::Error),
    /// Settings that cannot be; one line each.
    Invalid(Vec<String>),
}

impl Stop {
    /// 0 where help or version was asked for, else 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Shown(error) if !error.use_stderr() => 0,
            _ => 2,
        }
    }

    /// Prints it where it belongs: help on standard output, problems on standard error.
    pub fn print(&self) {
        use std::io::Write as _;
        // Nobody is left to tell if printing fails.
        let _ = match self {
            Self::Shown(error) => error.print(),
            Self::Invalid(_) => writeln!(std::io::stderr(), "{self}"),
        };
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(error) => write!(f, "{error}"),
            Self::Invalid(problems) => f.write_str(&problems.join("\n")),
        }
    }
}

impl std::error::Error for Stop {}

/// Reads the arguments (the program's name first), the environment through `environment` (`std::env::var_os` outside
/// tests), and the file that one of them names.
///
/// # Errors
/// With everything that is wrong; see [`Stop`].
pub fn parse<A>(
    arguments: impl IntoIterator<Item = A>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, Stop>
where
    A: Into<OsString> + Clone,
{
    let matches = command::command().try_get_matches_from(arguments).map_err(Stop::Shown)?;
    let Some((name, arguments)) = matches.subcommand() else {
        return Err(Stop::Invalid(vec!["no command given; try scorefront --help".to_owned()]));
    };
    let layers = Layers::gather(arguments, environment).map_err(|problem| Stop::Invalid(vec![problem]))?;
    let quick = name == command::QUICKSTART;
    let start = if quick { quickstart() } else { Config::default() };
    let mut config = layers.apply(start).map_err(Stop::Invalid)?;
    let problems = [tls::problems(&config), tokens::problems(&config)].concat();
    if !problems.is_empty() {
        return Err(Stop::Invalid(problems));
    }
    if config.workers == 0 {
        config.workers = cores::workers(Path::new("/"));
    }
    config.memory_bytes_max.get_or_insert_with(|| memory::share(Path::new("/")));
    Ok(match name {
        command::CHECK => Invocation::Check(config),
        command::QUICKSTART => Invocation::Quickstart(Config { sources: Vec::new(), ..config }),
        _ => Invocation::Serve(config),
    })
}

/// The quick start is for one machine: it listens on loopback, brings its own objects, and no load balancer needs time
/// to look elsewhere when it ends.
fn quickstart() -> Config {
    Config {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
        sources: Vec::new(),
        drain_grace: Duration::ZERO,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests;
