//! The settings of tokens.

use crate::control::config::rows::{millis, number};
use std::path::Path;

use super::tls::secret_of;
use crate::control::config::setting::{Group, Setting, Slot};

pub(super) const JWKS: Setting = Setting {
    key: "token-jwks",
    group: Group::Tokens,
    meaning: "Public keys that tokens are checked against (a JSON Web Key Set), where scorefront.dev/auth-mode is \
              aml_token. Renewed files are taken up while the router runs.",
    slot: Slot::Text {
        form: "PATH",
        allowed: "the path of a file, or of a folder with jwks.json",
        read: |config| path_text(config.tokens.file.as_deref()),
        write: |config, text| {
            config.tokens.file = Some(filled(text)?.into());
            Ok(())
        },
    },
};

pub(super) const URL: Setting = Setting {
    key: "token-jwks-url",
    group: Group::Tokens,
    meaning: "Where that key set is fetched again and again, instead of token-jwks.",
    slot: Slot::Text {
        form: "URL",
        allowed: "a URL with https; with http, one of a loopback address",
        read: |config| config.tokens.url.as_ref().map(ToString::to_string).unwrap_or_default(),
        write: |config, text| {
            config.tokens.url = Some(text.parse().map_err(str::to_owned)?);
            Ok(())
        },
    },
};

pub(super) const CA: Setting = Setting {
    key: "token-jwks-ca",
    group: Group::Tokens,
    meaning: "Authorities that the server of token-jwks-url is checked against, read anew for each fetch; without it \
              those of the system, of which the image has none.",
    slot: Slot::Text {
        form: "FILE",
        allowed: "the path of a PEM file",
        read: |config| path_text(config.tokens.ca.as_deref()),
        write: |config, text| {
            config.tokens.ca = Some(filled(text)?.into());
            Ok(())
        },
    },
};

pub(super) const INTERVAL: Setting = millis!(
    "token-jwks-interval-ms",
    Tokens,
    1000,
    86_400_000,
    tokens.interval,
    "Longest time between two fetches from token-jwks-url. The server can shorten it with Cache-Control: max-age."
);

pub(super) const INTERVAL_MIN: Setting = millis!(
    "token-jwks-interval-min-ms",
    Tokens,
    1000,
    86_400_000,
    tokens.interval_min,
    "Shortest time from one fetch to one that the server's max-age, or a token with an unknown key, asks for."
);

pub(super) const TIMEOUT: Setting = millis!(
    "token-jwks-timeout-ms",
    Tokens,
    100,
    300_000,
    tokens.timeout,
    "Longest time that a fetch may take, from the look-up of the name to the last byte."
);

pub(super) const SECRET: Setting = Setting {
    key: "token-jwks-secret",
    group: Group::Tokens,
    meaning: "Secret with that key set, as jwks.json or keys.json, instead of token-jwks. It is watched, and needs no \
              more than get, list and watch on it.",
    slot: Slot::Text {
        form: "NS/NAME",
        allowed: "the namespace and the name of a Secret, such as azureml/token-keys",
        read: |config| config.tokens.secret.as_ref().map(ToString::to_string).unwrap_or_default(),
        write: |config, text| {
            config.tokens.secret = Some(secret_of(text)?);
            Ok(())
        },
    },
};

pub(super) const ISSUER: Setting = Setting {
    key: "token-issuer",
    group: Group::Tokens,
    meaning: "What the iss of a token must be, to the letter.",
    slot: Slot::Text {
        form: "TEXT",
        allowed: "a text, usually a URL",
        read: |config| config.limits.tokens.issuer.clone(),
        write: |config, text| {
            config.limits.tokens.issuer = filled(text)?.to_owned();
            Ok(())
        },
    },
};

pub(super) const AUDIENCE: Setting = Setting {
    key: "token-audience",
    group: Group::Tokens,
    meaning: "What the aud of a token must be or have in it: one of these, to the letter.",
    slot: Slot::List {
        form: "TEXT",
        allowed: "a text, usually a URL",
        may_be_empty: true,
        read: |config| config.limits.tokens.audiences.clone(),
        empty: |config| config.limits.tokens.audiences.clear(),
        push: |config, text| {
            config.limits.tokens.audiences.push(filled(text)?.to_owned());
            Ok(())
        },
    },
};

pub(super) const ENDPOINT_CLAIM: Setting = Setting {
    key: "token-endpoint-claim",
    group: Group::Tokens,
    meaning: "Claim that must be the name of the endpoint, or a list with it. Without it a token is good for every \
              endpoint that asks for tokens.",
    slot: Slot::Text {
        form: "NAME",
        allowed: "the name of a claim",
        read: |config| config.limits.tokens.endpoint_claim.clone().unwrap_or_default(),
        write: |config, text| {
            config.limits.tokens.endpoint_claim = Some(filled(text)?.to_owned());
            Ok(())
        },
    },
};

pub(super) const LEEWAY: Setting = millis!(
    "token-leeway-ms",
    Tokens,
    0,
    600_000,
    limits.tokens.leeway,
    "How far the clocks of the issuer and the router may be apart."
);

pub(super) const STALE_MAX: Setting = millis!(
    "token-stale-max-ms",
    Tokens,
    1000,
    2_592_000_000,
    limits.tokens.stale_max,
    "How long keys count after their source could last be read; then no token is accepted."
);

pub(super) const SUBJECTS_MAX: Setting = number!(
    "max-token-subjects",
    Tokens,
    8,
    10_000_000,
    limits.token_subjects_max,
    "Subjects of tokens whose part of the key rate limits is remembered, for each endpoint with such limits. Above that newcomers take over what those owe who owe least."
);

fn filled(text: &str) -> Result<&str, String> {
    Some(text).filter(|text| !text.is_empty()).ok_or_else(|| "is empty".to_owned())
}

fn path_text(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}
