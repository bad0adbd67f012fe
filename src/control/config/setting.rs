//! What a setting is: its name, what it may be, and how a value gets into the configuration.

use serde::Serialize;

use super::Config;

/// What settings are about; the headings of help and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Addresses and threads.
    Router,
    /// TLS of clients.
    Tls,
    /// Tokens of clients.
    Tokens,
    /// Where objects come from.
    Discovery,
    /// Access log and trace log.
    Logs,
    /// The end of the process.
    Drain,
    /// Limits on clients.
    Clients,
    /// Limits towards replicas.
    Replicas,
}

impl Group {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Router,
        Self::Tls,
        Self::Tokens,
        Self::Discovery,
        Self::Logs,
        Self::Drain,
        Self::Clients,
        Self::Replicas,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Router => "Router",
            Self::Tls => "TLS",
            Self::Tokens => "Tokens",
            Self::Discovery => "Discovery",
            Self::Logs => "Logs",
            Self::Drain => "Drain",
            Self::Clients => "Clients",
            Self::Replicas => "Replicas",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name: the flag without `--`, and the key of the file.
    pub key: &'static str,
    /// What it is about.
    pub group: Group,
    /// What it means; a sentence.
    pub meaning: &'static str,
    /// What it may be, and where it goes.
    pub(super) slot: Slot,
}

/// What a setting may be, and where it goes.
#[derive(Debug)]
pub(super) enum Slot {
    /// A whole number from `min` to `max`.
    Number { min: u64, max: u64, read: fn(&Config) -> u64, write: fn(&mut Config, u64) },
    /// `true` or `false`.
    Switch { read: fn(&Config) -> bool, write: fn(&mut Config, bool) },
    /// Something that is parsed. `allowed` completes "allowed: …".
    Text {
        form: &'static str,
        allowed: &'static str,
        read: fn(&Config) -> String,
        write: fn(&mut Config, &str) -> Result<(), String>,
    },
    /// Several of that; the flag may be repeated. The list is emptied before the first one.
    List {
        form: &'static str,
        allowed: &'static str,
        may_be_empty: bool,
        read: fn(&Config) -> Vec<String>,
        empty: fn(&mut Config),
        push: fn(&mut Config, &str) -> Result<(), String>,
    },
}

/// A value as `/debug/config` and the documentation show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Number(u64),
    Switch(bool),
    Text(String),
    List(Vec<String>),
}

impl Setting {
    /// The environment variable of the same meaning.
    pub fn variable(&self) -> String {
        format!("SCOREFRONT_{}", self.key.replace('-', "_").to_ascii_uppercase())
    }

    /// What may be given: a range, or a description.
    pub fn allowed(&self) -> String {
        match self.slot {
            Slot::Number { min, max, .. } => format!("{min} to {max}"),
            Slot::Switch { .. } => "true or false".to_owned(),
            Slot::Text { allowed, .. } | Slot::List { allowed, .. } => allowed.to_owned(),
        }
    }

    /// Whether several values may be given.
    pub fn is_list(&self) -> bool {
        matches!(self.slot, Slot::List { .. })
    }

    /// The default for people.
    pub fn default_text(&self) -> String {
        self.text_of(&Config::default())
    }

    /// What a configuration has that nobody changed.
    pub(super) fn text_of(&self, start: &Config) -> String {
        match (self.key, self.shown(start)) {
            ("workers", _) => "the CPU limit of the cgroup rounded up, else the cores".to_owned(),
            ("max-memory-bytes", _) => "80 % of the cgroup's memory limit, or of the machine's memory".to_owned(),
            ("namespace", _) => "all".to_owned(),
            ("kubeconfig", _) => "what kubectl uses, else the service account of the pod".to_owned(),
            ("state-file" | "state-key-file", _) => "none".to_owned(),
            ("token-jwks-ca", _) => "those of the system".to_owned(),
            (
                "client-ca"
                | "token-jwks"
                | "token-jwks-url"
                | "token-jwks-secret"
                | "token-issuer"
                | "token-endpoint-claim",
                Shown::Text(text),
            ) if text.is_empty() => "none".to_owned(),
            (_, Shown::Number(number)) => number.to_string(),
            (_, Shown::Switch(on)) => on.to_string(),
            (_, Shown::Text(text)) => text,
            (_, Shown::List(items)) if items.is_empty() => "none".to_owned(),
            (_, Shown::List(items)) => items.join(", "),
        }
    }

    /// The word for a value in usage lines.
    pub(super) fn form(&self) -> &'static str {
        match self.slot {
            Slot::Number { .. } => "N",
            Slot::Switch { .. } => "BOOL",
            Slot::Text { form, .. } | Slot::List { form, .. } => form,
        }
    }

    pub(super) fn shown(&self, config: &Config) -> Shown {
        match self.slot {
            Slot::Number { read, .. } => Shown::Number(read(config)),
            Slot::Switch { read, .. } => Shown::Switch(read(config)),
            Slot::Text { read, .. } => Shown::Text(read(config)),
            Slot::List { read, .. } => Shown::List(read(config)),
        }
    }

    /// Puts values in place.
    ///
    /// # Errors
    /// What is wrong with which value, and what is allowed.
    pub(super) fn put(&self, config: &mut Config, values: &[String]) -> Result<(), String> {
        if let Slot::List { may_be_empty, empty, push, .. } = self.slot {
            if values.is_empty() && !may_be_empty {
                return Err(format!("needs at least one value; allowed: {}", self.allowed()));
            }
            empty(config);
            return values.iter().try_for_each(|value| push(config, value).map_err(|why| self.refuse(value, &why)));
        }
        let [value] = values else {
            return Err(format!("takes one value, not {}; allowed: {}", values.len(), self.allowed()));
        };
        match self.slot {
            Slot::Number { min, max, write, .. } => match value.parse() {
                Ok(number) if (min..=max).contains(&number) => write(config, number),
                Ok(_) => return Err(self.refuse(value, "is out of range")),
                Err(_) => return Err(self.refuse(value, "is no whole number")),
            },
            Slot::Switch { write, .. } => match value.as_str() {
                "true" => write(config, true),
                "false" => write(config, false),
                _ => return Err(self.refuse(value, "is neither")),
            },
            Slot::Text { write, .. } => write(config, value).map_err(|why| self.refuse(value, &why))?,
            Slot::List { .. } => {}
        }
        Ok(())
    }

    fn refuse(&self, value: &str, why: &str) -> String {
        format!("{value:?} {why}; allowed: {}", self.allowed())
    }
}
