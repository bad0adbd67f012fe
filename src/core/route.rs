//! From a path to an endpoint, and from an endpoint to a deployment. Pure.

use std::sync::Arc;

use super::dice::Dice;
use super::facts::Form;
use super::outcome::Outcome;
use super::snapshot::{Deployment, Endpoint, Snapshot};

/// The longest name that can exist; longer ones need no look-up.
const NAME_MAX: usize = 63;

/// What a public path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicPath<'a> {
    /// `/`: the health page for load balancers.
    Health,
    /// One of the two public forms.
    Scoring {
        /// Which of the two.
        form: Form,
        /// Name of the endpoint or service, as the client wrote it.
        name: &'a str,
        /// What is wanted there.
        wanted: Wanted<'a>,
    },
}

/// What is wanted of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// `score`: the deployment's scoring path.
    Score,
    /// Any other path, with its leading slash.
    Path(&'a str),
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It is none of the public forms.
    Unknown,
    /// It could be read in more than one way.
    Ambiguous(&'static str),
}

/// Reads a path. Nothing is decoded: a path that would mean something else once decoded is refused, so router and
/// replica cannot read it differently.
pub fn parse_path(path: &str) -> Result<PublicPath<'_>, PathError> {
    if path == "/" {
        return Ok(PublicPath::Health);
    }
    let Some(after) = path.strip_prefix("/api/v1/") else { return Err(PathError::Unknown) };
    let (form, after) = match after.split_once('/') {
        Some(("endpoint", after)) => (Form::Endpoint, after),
        Some(("service", after)) => (Form::Service, after),
        _ => return Err(PathError::Unknown),
    };
    let Some(slash) = after.find('/') else { return Err(PathError::Unknown) };
    let (name, rest) = after.split_at(slash);
    if name.is_empty() || rest.len() < 2 {
        return Err(PathError::Unknown);
    }
    refuse_ambiguous(rest)?;
    let wanted = if rest == "/score" { Wanted::Score } else { Wanted::Path(rest) };
    Ok(PublicPath::Scoring { form, name, wanted })
}

/// Refuses dot segments and separators in disguise, and an empty first segment (`//host/…` is an authority to some).
fn refuse_ambiguous(rest: &str) -> Result<(), PathError> {
    if rest.starts_with("//") {
        return Err(PathError::Ambiguous("an empty first segment"));
    }
    // The common case has nothing to look at twice.
    if !rest.bytes().any(|byte| matches!(byte, b'%' | b'.' | b'\\')) {
        return Ok(());
    }
    if rest.contains('\\') {
        return Err(PathError::Ambiguous("a backslash"));
    }
    for segment in rest.split('/') {
        if is_dot_segment(segment) {
            return Err(PathError::Ambiguous("a dot segment"));
        }
    }
    let bytes = rest.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'%') {
        let digits = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            None => return Err(PathError::Ambiguous("a percent sign without two hexadecimal digits")),
            Some(b'/' | b'\\') => return Err(PathError::Ambiguous("an encoded slash or backslash")),
            Some(0..=0x1f | 0x7f) => return Err(PathError::Ambiguous("an encoded control character")),
            Some(_) => {}
        }
    }
    Ok(())
}

/// `.`, `..` and all their encodings, with or without parameters (`..;x`, `..%3bx`): some servers cut those off first.
fn is_dot_segment(segment: &str) -> bool {
    let Some(mut rest) = strip(segment, '.', "%2e") else { return false };
    if let Some(after) = strip(rest, '.', "%2e") {
        rest = after;
    }
    rest.is_empty() || strip(rest, ';', "%3b").is_some()
}

/// What follows a character at the start of `text`, be it plain or encoded.
fn strip<'t>(text: &'t str, plain: char, encoded: &str) -> Option<&'t str> {
    text.strip_prefix(plain).or_else(|| {
        let (start, after) = text.split_at_checked(encoded.len())?;
        start.eq_ignore_ascii_case(encoded).then_some(after)
    })
}

/// Finds the endpoint of a name, in any case.
pub fn find<'s>(snapshot: &'s Snapshot, form: Form, name: &str) -> Option<&'s Arc<Endpoint>> {
    if name.len() > NAME_MAX {
        return None;
    }
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return snapshot.find(form, name);
    }
    let mut buffer = [0_u8; NAME_MAX];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    snapshot.find(form, std::str::from_utf8(lower).ok()?)
}

/// Chooses the deployment: the one that the client named, else by the split.
pub fn choose<'e>(
    endpoint: &'e Endpoint,
    named: Option<&str>,
    dice: &mut Dice,
) -> Result<&'e Arc<Deployment>, Outcome> {
    match named {
        Some(name) => endpoint.deployment(name).ok_or(Outcome::UnknownDeployment),
        None => {
            let position = endpoint.split.choose(dice).ok_or(Outcome::NoReplica)?;
            endpoint.deployments.get(position).ok_or(Outcome::Internal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scoring(path: &str) -> (Form, &str, Wanted<'_>) {
        match parse_path(path) {
            Ok(PublicPath::Scoring { form, name, wanted }) => (form, name, wanted),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn the_public_forms_are_read() {
        assert_eq!(parse_path("/"), Ok(PublicPath::Health));
        assert_eq!(scoring("/api/v1/endpoint/iris/score"), (Form::Endpoint, "iris", Wanted::Score));
        assert_eq!(scoring("/api/v1/service/old/score"), (Form::Service, "old", Wanted::Score));
        assert_eq!(
            scoring("/api/v1/endpoint/Iris/swagger.json"),
            (Form::Endpoint, "Iris", Wanted::Path("/swagger.json"))
        );
        let triton = "/api/v1/endpoint/t/v2/models/m/infer";
        assert_eq!(scoring(triton), (Form::Endpoint, "t", Wanted::Path("/v2/models/m/infer")));
        let tf = "/api/v1/endpoint/t/v1/models/m:predict";
        assert_eq!(scoring(tf), (Form::Endpoint, "t", Wanted::Path("/v1/models/m:predict")));
        assert_eq!(scoring("/api/v1/endpoint/t/a%20b/c.d"), (Form::Endpoint, "t", Wanted::Path("/a%20b/c.d")));
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            "",
            "/api",
            "/api/v1/",
            "/api/v1/endpoint",
            "/api/v1/endpoint/",
            "/api/v1/endpoint/iris",
            "/api/v1/endpoint/iris/",
            "/api/v1/endpoint//score",
            "/api/v1/Endpoint/iris/score",
            "/api/v2/endpoint/iris/score",
            "/score",
            "//api/v1/endpoint/iris/score",
            "*",
        ] {
            assert_eq!(parse_path(path), Err(PathError::Unknown), "{path}");
        }
    }

    #[test]
    fn no_path_leaves_its_endpoint_or_reads_two_ways() {
        for rest in [
            "../other/score",
            "a/../score",
            "a/..",
            "./score",
            "%2e%2e/score",
            "%2E./score",
            ".%2e/score",
            "%2e/score",
            "..;x=1/score",
            "..%3bx=1/score",
            "%2e%2e%3B",
            "a%2fb",
            "a%2Fb",
            "a%5cb",
            "a\\b",
            "a%00",
            "a%0d%0ab",
            "a%",
            "a%2",
            "a%zz",
            "a%+1",
            "/score",
        ] {
            let path = format!("/api/v1/endpoint/iris/{rest}");
            assert!(matches!(parse_path(&path), Err(PathError::Ambiguous(_))), "{path}");
        }
    }

    #[test]
    fn names_with_odd_bytes_find_nothing() {
        let snapshot = Snapshot::default();
        for name in ["iris", "IRIS", "ir%69s", "é", &"x".repeat(10_000)] {
            assert!(find(&snapshot, Form::Endpoint, name).is_none());
        }
    }
}
