//! Tokens that clients present: JSON Web Tokens in their compact form, signed by a key of a key set (RFC 7515 to 7519).
//!
//! Owner: `control::tokens` reads key sets, `data::auth` asks about tokens.
//! Holds: what algorithm a key is good for is said by the key, never by the token, so no token can choose how it is
//! checked. Claims are read after the signature was found right. Nothing of a token is ever in a message.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;

use self::json::Members;
pub use self::keys::KeySet;
pub use self::state::{FetchCounts, Report, TokenState};
use super::subjects::Subject;

mod base64;
mod json;
mod keys;
mod state;
#[cfg(test)]
mod tests;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How a token is signed. There is no other way, and none without a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Ps256,
    Es256,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Rs256, Self::Ps256, Self::Es256];

    fn word(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
        }
    }
}

/// What a token must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Its `iss`. Empty: no token is accepted.
    pub issuer: String,
    /// One of these must be its `aud`, or in it. Empty: no token is accepted.
    pub audiences: Vec<String>,
    /// The claim that must name the endpoint, if any.
    pub endpoint_claim: Option<String>,
    /// How far the clocks of issuer and router may be apart.
    pub leeway: Duration,
    /// How long keys count after they could last be read.
    pub stale_max: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audiences: Vec::new(),
            endpoint_claim: None,
            leeway: Duration::from_secs(60),
            stale_max: Duration::from_secs(86_400),
        }
    }
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The router has no rules for tokens.
    NotConfigured,
    /// The router never had a key set.
    NoKeys,
    /// The router's key set could not be read for too long.
    StaleKeys,
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Not three parts in base64url with a JSON object in the first.
    Malformed,
    /// `alg` is none of the three.
    Algorithm,
    /// `crit` asks for what is not known here.
    Critical,
    /// No key of the set, or more than one, could have signed it.
    UnknownKey,
    /// The signature is wrong.
    Signature,
    /// The claims are no JSON object, or a time is no number.
    Claims,
    /// No `exp`.
    NoExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    TooEarly,
    /// `iss` is another one.
    Issuer,
    /// `aud` is another one.
    Audience,
    /// The claim with the endpoint's name says something else.
    Endpoint,
}

impl Fault {
    /// Whether a token may be right and the router cannot tell.
    pub fn is_of_router(self) -> bool {
        matches!(self, Self::NotConfigured | Self::NoKeys | Self::StaleKeys)
    }

    /// For logs; for clients too, where the fault is the token's.
    pub fn message(self) -> &'static str {
        match self {
            Self::NotConfigured => {
                "the endpoint asks for tokens, and the router has no rules for them: set token-issuer, token-audience, and one of token-jwks, token-jwks-url and token-jwks-secret"
            }
            Self::NoKeys => "no key set for tokens could be read since the start; /debug/tokens says why",
            Self::StaleKeys => {
                "the key set for tokens could not be read for longer than token-stale-max-ms; /debug/tokens says why"
            }
            Self::TooLong => "the token is longer than 8192 bytes",
            Self::Malformed => "the token is no JSON Web Token in compact form",
            Self::Algorithm => "the token's alg is none of RS256, PS256 and ES256",
            Self::Critical => "the token's crit asks for extensions, and none is known",
            Self::UnknownKey => "no key of the key set fits the token's alg and kid",
            Self::Signature => "the token's signature is wrong",
            Self::Claims => "the token's claims cannot be read",
            Self::NoExpiry => "the token has no exp",
            Self::Expired => "the token has expired",
            Self::TooEarly => "the token is not valid yet",
            Self::Issuer => "the token's iss is not the issuer that is trusted",
            Self::Audience => "the token's aud is not the audience that is asked for",
            Self::Endpoint => "the token is for another endpoint",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// The claims that say whom a token is about, the best first. After `sub`, what issuers of the cloud name users and
/// applications by.
const SUBJECT_CLAIMS: [&str; 5] = ["sub", "oid", "azp", "appid", "client_id"];

/// A token that is good for the endpoint it was shown to.
pub struct Verified<'a> {
    claims: Members,
    /// Head and claims as they came, without the signature: of one that is right, somebody can make another that is.
    signed: &'a [u8],
}

impl Verified<'_> {
    /// Whom it is about. Where it does not say, only what is the same token is about the same one.
    pub fn subject(&self) -> Subject {
        let said = SUBJECT_CLAIMS.into_iter().find_map(|name| {
            let text = self.claims.get(name)?.text()?;
            (!text.is_empty()).then_some((name, text))
        });
        let (name, value) = match said {
            Some((name, text)) => (name, text.as_bytes()),
            None => ("", self.signed),
        };
        let mut context = digest::Context::new(&digest::SHA256);
        // A name has no zero in it, so no two pairs are the same bytes.
        [name.as_bytes(), b"\0", value].into_iter().for_each(|part| context.update(part));
        let mut subject = [0; 16];
        subject.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Subject(subject)
    }
}

impl fmt::Debug for Verified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verified(…)")
    }
}

/// Checks a token for the endpoint.
///
/// # Errors
/// With the first thing that is wrong with it.
pub fn verify<'a>(
    token: &'a [u8],
    keys: &KeySet,
    rules: &Rules,
    endpoint: &str,
    now: SystemTime,
) -> Result<Verified<'a>, Fault> {
    if rules.issuer.is_empty() || rules.audiences.is_empty() {
        return Err(Fault::NotConfigured);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Malformed);
    };
    let header = base64::decode(head).and_then(|head| json::read_object(&head)).ok_or(Fault::Malformed)?;
    let (claims, signature) = base64::decode(body).zip(base64::decode(signature)).ok_or(Fault::Malformed)?;
    let (algorithm, kid) = read_header(&header)?;
    let public = keys.choose(algorithm, kid).ok_or(Fault::UnknownKey)?;
    // What is signed is the text of the first two parts, with the dot between them.
    let signed = token.get(..head.len() + 1 + body.len()).ok_or(Fault::Malformed)?;
    public.verify_sig(signed, &signature).map_err(|_| Fault::Signature)?;
    let claims = json::read_object(&claims).ok_or(Fault::Claims)?;
    check(&claims, rules, endpoint, now)?;
    Ok(Verified { claims, signed })
}

fn read_header(header: &Members) -> Result<(Algorithm, Option<&str>), Fault> {
    if header.contains_key("crit") {
        return Err(Fault::Critical);
    }
    let word = header.get("alg").and_then(json::Json::text);
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| Some(algorithm.word()) == word);
    let kid = header.get("kid").map(|kid| kid.text().ok_or(Fault::Malformed)).transpose()?;
    Ok((algorithm.ok_or(Fault::Algorithm)?, kid))
}

fn check(claims: &Members, rules: &Rules, endpoint: &str, now: SystemTime) -> Result<(), Fault> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let leeway = rules.leeway.as_secs_f64();
    let time = |name| claims.get(name).map(|time| time.number().ok_or(Fault::Claims)).transpose();
    if now >= time("exp")?.ok_or(Fault::NoExpiry)? + leeway {
        return Err(Fault::Expired);
    }
    if time("nbf")?.is_some_and(|from| now + leeway < from) {
        return Err(Fault::TooEarly);
    }
    if claims.get("iss").and_then(json::Json::text) != Some(rules.issuer.as_str()) {
        return Err(Fault::Issuer);
    }
    let is_asked_for = |name: &str| rules.audiences.iter().any(|audience| audience == name);
    if !claims.get("aud").is_some_and(|audience| audience.names(is_asked_for)) {
        return Err(Fault::Audience);
    }
    let Some(claim) = &rules.endpoint_claim else { return Ok(()) };
    // Names of endpoints are the same in any case.
    let is_right = claims.get(claim).is_some_and(|value| value.names(|name| name.eq_ignore_ascii_case(endpoint)));
    if is_right { Ok(()) } else { Err(Fault::Endpoint) }
}
