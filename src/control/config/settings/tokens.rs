//! The settings of tokens.

use crate::control::config::rows::millis;
use crate::control::config::setting::{Group, Setting, Slot};

pub(super) const JWKS: Setting = Setting {
    key: "token-jwks",
    group: Group::Tokens,
    meaning: "Public keys that tokens are checked against (a JSON Web Key Set), where scorefront.dev/auth-mode is \
              aml_token. Renewed files are taken up while the router runs.",
    slot: Slot::Text {
        form: "PATH",
        allowed: "the path of a file, or of a folder with jwks.json",
        read: |config| config.token_jwks.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        write: |config, text| {
            config.token_jwks = Some(filled(text)?.into());
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
    "How long keys count after token-jwks could last be read; then no token is accepted."
);

fn filled(text: &str) -> Result<&str, String> {
    Some(text).filter(|text| !text.is_empty()).ok_or_else(|| "is empty".to_owned())
}
