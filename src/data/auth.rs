//! Who may score: keys, compared by their digests, and tokens.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::core::keys::Presented;
use crate::core::record::AuthType;
use crate::core::snapshot::Access;
use crate::core::token::Fault;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No `Authorization` header.
    Missing,
    /// One that is not `Bearer <key>`.
    NotBearer,
    /// A key that is none of the endpoint's.
    Wrong,
    /// The endpoint has no key that could be right.
    NoKeys,
    /// A token that is not accepted.
    Token(Fault),
}

impl Refusal {
    /// The first sentence is what clients of v1 match on.
    pub(crate) fn message(self) -> String {
        let text = match self {
            Self::Token(fault) if fault.is_of_router() => "Unauthorized. The router cannot check tokens now.",
            Self::Token(fault) => return format!("Unauthorized: {fault}."),
            Self::Missing => "Unauthorized, no Auth Header. Send `Authorization: Bearer <key>`.",
            Self::NotBearer => "Unauthorized. The Authorization header must be `Bearer <key>`.",
            Self::Wrong => "Unauthorized. The key is neither the primary nor the secondary key of this endpoint.",
            Self::NoKeys => {
                "Unauthorized. This endpoint has no valid keys: its namespace needs a Secret with the label \
                 ml.azure.com/endpoint-name and the fields primaryKey and secondaryKey."
            }
        };
        text.to_owned()
    }

    /// Whether it was an attempt that failed. A request without credentials is none: some clients ask first, and send
    /// them when told to. Nor is it the client's fault where no credentials could be right.
    pub(crate) fn is_attempt(self) -> bool {
        match self {
            Self::NotBearer | Self::Wrong => true,
            Self::Token(fault) => !fault.is_of_router(),
            Self::Missing | Self::NoKeys => false,
        }
    }

    /// What the log says instead, where that is nothing for clients.
    pub(crate) fn detail(self) -> Option<&'static str> {
        match self {
            Self::Token(fault) if fault.is_of_router() => Some(fault.message()),
            _ => None,
        }
    }
}

/// Checks the credentials of a request; `verify` checks a token. Every key is compared, and each in constant time: how
/// long it takes tells nothing about how much of a guess was right.
pub(crate) fn check(
    access: &Access,
    headers: &HeaderMap,
    verify: impl FnOnce(&[u8]) -> Result<(), Fault>,
) -> Result<AuthType, Refusal> {
    if matches!(access, Access::Open) {
        return Ok(AuthType::None);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let value = value.ok_or(Refusal::Missing)?.as_bytes();
    if more.is_some() {
        return Err(Refusal::NotBearer);
    }
    let key = bearer(value).ok_or(Refusal::NotBearer)?;
    let keys = match access {
        Access::Open => return Ok(AuthType::None),
        Access::Token => return verify(key).map(|()| AuthType::Token).map_err(Refusal::Token),
        Access::Keys(keys) => keys,
    };
    if keys.is_empty() {
        return Err(Refusal::NoKeys);
    }
    let presented = Presented::new(key);
    let mut matches = 0_u8;
    for key in keys.iter() {
        matches |= u8::from(key.recognises(&presented));
    }
    if matches == 0 { Err(Refusal::Wrong) } else { Ok(AuthType::Key) }
}

/// Which of the endpoint's keys a request came with whose credentials were found valid. Only for endpoints that make a
/// difference between keys.
pub(crate) fn key_index(access: &Access, headers: &HeaderMap) -> Option<usize> {
    let Access::Keys(keys) = access else { return None };
    let presented = Presented::new(bearer(headers.get(AUTHORIZATION)?.as_bytes())?);
    keys.iter().position(|key| key.recognises(&presented))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facts::{KeyDigest, Seal};

    fn check(access: &Access, headers: &HeaderMap) -> Result<AuthType, Refusal> {
        let verify = |token: &[u8]| if token == b"token" { Ok(()) } else { Err(Fault::Expired) };
        super::check(access, headers, verify)
    }

    fn access(keys: &[&str]) -> Access {
        Access::Keys(keys.iter().map(|key| KeyDigest::of(key.as_bytes())).collect())
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn both_keys_are_valid_and_others_are_not() {
        let access = access(&["first", "second"]);
        assert_eq!(check(&access, &headers(&["Bearer first"])), Ok(AuthType::Key));
        assert_eq!(check(&access, &headers(&["bearer second"])), Ok(AuthType::Key));
        assert_eq!(key_index(&access, &headers(&["Bearer first"])), Some(0));
        assert_eq!(key_index(&access, &headers(&["bearer second"])), Some(1));
        assert_eq!(key_index(&Access::Open, &headers(&["Bearer first"])), None);
        assert_eq!(check(&access, &headers(&["Bearer firs"])), Err(Refusal::Wrong));
        assert_eq!(check(&access, &headers(&["Bearer "])), Err(Refusal::NotBearer));
        assert_eq!(check(&access, &headers(&["Basic Zmlyc3Q="])), Err(Refusal::NotBearer));
        assert_eq!(check(&access, &headers(&["Bearer first", "Bearer first"])), Err(Refusal::NotBearer));
        assert_eq!(check(&access, &headers(&[])), Err(Refusal::Missing));
    }

    #[test]
    fn keys_of_a_restored_world_are_as_valid_as_they_were() {
        let seal = Seal([3; 32]);
        let digests = ["first", "second"].map(|key| KeyDigest::of(key.as_bytes()).sealed(&seal).unwrap());
        let access = Access::Keys(digests.into_iter().map(|tag| KeyDigest::Sealed { tag, seal }).collect());
        assert_eq!(check(&access, &headers(&["Bearer first"])), Ok(AuthType::Key));
        assert_eq!(check(&access, &headers(&["Bearer second"])), Ok(AuthType::Key));
        assert_eq!(check(&access, &headers(&["Bearer third"])), Err(Refusal::Wrong));
    }

    #[test]
    fn without_keys_nobody_gets_in_and_an_open_endpoint_asks_for_none() {
        assert_eq!(check(&access(&[]), &headers(&["Bearer x"])), Err(Refusal::NoKeys));
        assert_eq!(check(&Access::Open, &headers(&[])), Ok(AuthType::None));
        assert_eq!(check(&Access::Open, &headers(&["Bearer x"])), Ok(AuthType::None));
    }

    #[test]
    fn where_tokens_are_asked_for_a_token_is_all_that_counts() {
        assert_eq!(check(&Access::Token, &headers(&["Bearer token"])), Ok(AuthType::Token));
        assert_eq!(check(&Access::Token, &headers(&["Bearer x"])), Err(Refusal::Token(Fault::Expired)));
        assert_eq!(check(&Access::Token, &headers(&[])), Err(Refusal::Missing));
        assert_eq!(check(&Access::Token, &headers(&["Bearer token", "Bearer token"])), Err(Refusal::NotBearer));
        assert_eq!(check(&access(&["key"]), &headers(&["Bearer token"])), Err(Refusal::Wrong));
    }

    #[test]
    fn what_is_the_matter_with_the_router_is_for_its_log_only() {
        let refusal = Refusal::Token(Fault::NoKeys);
        assert!(!refusal.message().contains("/debug/tokens"));
        assert!(refusal.detail().is_some_and(|detail| detail.contains("/debug/tokens")));
        assert_eq!(Refusal::Token(Fault::Expired).message(), "Unauthorized: the token has expired.");
        assert_eq!(Refusal::Token(Fault::Expired).detail(), None);
    }

    #[test]
    fn only_credentials_that_are_wrong_are_a_failed_attempt() {
        let attempts = [Refusal::Wrong, Refusal::NotBearer, Refusal::Token(Fault::Signature)];
        let others = [Refusal::Missing, Refusal::NoKeys, Refusal::Token(Fault::StaleKeys)];
        assert!(attempts.into_iter().all(Refusal::is_attempt) && !others.into_iter().any(Refusal::is_attempt));
    }
}
