//! The form of the file: one line with magic, version, salt and mark, and the world as JSON after it.
//!
//! The mark is over the version and everything after the line, so nothing that was cut, flipped or put together by
//! somebody else is ever parsed.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::rows::{OwnerRow, SecretRow, ServiceRow, SliceRow};
use super::seal::{MARK_BYTES, Root, SALT_BYTES, Seals, salt};
use super::{Kept, Origin, Refusal};
use crate::core::assemble::Facts;
use crate::core::facts::Seal;

/// What every state file begins with.
pub(super) const MAGIC: &str = "scorefront-state";
/// The version that is written, and the only one that is read: a restart is of the same program in the same pod, and
/// after any other one the sources are asked.
pub(super) const VERSION: &str = "1";

/// Everything after the first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    as_of_ms: u64,
    sources: Vec<String>,
    namespaces: Vec<String>,
    owners: Vec<OwnerRow>,
    services: Vec<ServiceRow>,
    slices: Vec<SliceRow>,
    secrets: Vec<SecretRow>,
}

/// The bytes of a file.
pub(super) fn encode(kept: &Kept, origin: &Origin, root: &Root) -> Result<Vec<u8>, Refusal> {
    let salt = salt()?;
    let seals = root.seals(&salt)?;
    let body = serde_json::to_vec(&Body::of(kept, origin, &seals.keys)?)
        .map_err(|error| Refusal::Malformed("the world", error.to_string()))?;
    Ok(with_mark(&body, &salt, &seals))
}

/// A body under the line that says it is ours.
fn with_mark(body: &[u8], salt: &[u8; SALT_BYTES], seals: &Seals) -> Vec<u8> {
    let mark = seals.mark([VERSION.as_bytes(), body]);
    let mut bytes = format!("{MAGIC} {VERSION} {} {}\n", hex(salt), hex(&mark)).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The file that these bytes would be the body of.
#[cfg(any(test, feature = "testing"))]
pub(super) fn mark(body: &[u8], root: &Root) -> Result<Vec<u8>, Refusal> {
    let salt = [7; SALT_BYTES];
    Ok(with_mark(body, &salt, &root.seals(&salt)?))
}

/// What the bytes of a file say, and what it is of.
pub(super) fn decode(bytes: &[u8], root: &Root) -> Result<(Origin, Kept), Refusal> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes()).and_then(|rest| rest.strip_prefix(b" ")).ok_or(Refusal::Unknown)?;
    let end = rest.iter().take(256).position(|&byte| byte == b'\n').ok_or(Refusal::Broken)?;
    let (line, body) = rest.split_at_checked(end).ok_or(Refusal::Broken)?;
    let body = body.strip_prefix(b"\n").ok_or(Refusal::Broken)?;
    let line = std::str::from_utf8(line).map_err(|_| Refusal::Broken)?;
    let (version, line) = line.split_once(' ').ok_or(Refusal::Broken)?;
    if version != VERSION {
        return Err(Refusal::Version(version.chars().take(16).collect()));
    }
    let (salt, mark) = line.split_once(' ').ok_or(Refusal::Broken)?;
    let salt: [u8; SALT_BYTES] = unhex(salt).ok_or(Refusal::Broken)?;
    let mark: [u8; MARK_BYTES] = unhex(mark).ok_or(Refusal::Broken)?;
    let seals = root.seals(&salt)?;
    if !seals.is_mark([version.as_bytes(), body], &mark) {
        return Err(Refusal::Broken);
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| Refusal::Malformed("its form", error.to_string()))?;
    body.read(&seals.keys)
}

impl Body {
    fn of(kept: &Kept, origin: &Origin, seal: &Seal) -> Result<Self, Refusal> {
        let Facts { services, slices, secrets, owners } = &kept.facts;
        let since = kept.as_of.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            as_of_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            sources: origin.sources.clone(),
            namespaces: origin.namespaces.clone(),
            owners: owners.iter().map(OwnerRow::of).collect(),
            services: services.iter().map(|facts| ServiceRow::of(facts)).collect(),
            slices: slices.iter().map(|facts| SliceRow::of(facts)).collect(),
            secrets: secrets.iter().map(|facts| SecretRow::of(facts, seal)).collect::<Result<_, _>>()?,
        })
    }

    fn read(self, seal: &Seal) -> Result<(Origin, Kept), Refusal> {
        let facts = Facts {
            services: self.services.into_iter().map(ServiceRow::read).collect::<Result<_, _>>()?,
            slices: self.slices.into_iter().map(SliceRow::read).collect::<Result<_, _>>()?,
            secrets: self.secrets.into_iter().map(|row| row.read(seal)).collect::<Result<_, _>>()?,
            owners: self.owners.into_iter().map(OwnerRow::read).collect::<Result<_, _>>()?,
        };
        let as_of: Option<SystemTime> = UNIX_EPOCH.checked_add(Duration::from_millis(self.as_of_ms));
        let as_of = as_of.ok_or_else(|| Refusal::Malformed("as_of_ms", format!("{} is no time", self.as_of_ms)))?;
        Ok((Origin { sources: self.sources, namespaces: self.namespaces }, Kept { as_of, facts }))
    }
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// And back, if it is exactly so many in lower case.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}
