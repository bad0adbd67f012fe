//! Annotations about CORS.

use http::Method;
use http::header::HeaderName;

use super::{Annotation, number, set};
use crate::core::cors::{ENTRIES_MAX, Origins, is_origin};

pub(super) const ORIGINS: Annotation = Annotation {
    name: "cors-origins",
    range: "* or up to 64 origins like https://app.example.com, with a port only if it is not the usual one, separated by commas",
    default: "none: replicas decide, and OPTIONS needs credentials",
    meaning: "Pages of which origins may score. The router then answers preflights itself, and its headers about CORS \
              take the place of the replica's. Of all deployments of the endpoint, the oldest that says anything about \
              CORS decides.",
    read: |text, draft| set(&mut draft.settings.cors.origins, origins(text).map(Some)),
    keep: |last, draft| draft.settings.cors.origins = last.settings.cors.origins.clone(),
};

pub(super) const METHODS: Annotation = Annotation {
    name: "cors-methods",
    range: "up to 64 methods in upper case, separated by commas",
    default: "POST",
    meaning: "The methods that such pages may use. GET, HEAD and POST need no permission.",
    read: |text, draft| set(&mut draft.settings.cors.methods, entries(text, method).map(Some)),
    keep: |last, draft| draft.settings.cors.methods = last.settings.cors.methods.clone(),
};

pub(super) const HEADERS: Annotation = Annotation {
    name: "cors-headers",
    range: "up to 64 names of headers, separated by commas",
    default: "authorization, content-type, azureml-model-deployment, x-ms-client-request-id, x-ms-request-id, \
              x-request-id, traceparent, tracestate",
    meaning: "The headers that such pages may send.",
    read: |text, draft| set(&mut draft.settings.cors.headers, entries(text, header).map(Some)),
    keep: |last, draft| draft.settings.cors.headers = last.settings.cors.headers.clone(),
};

pub(super) const MAX_AGE: Annotation = Annotation {
    name: "cors-max-age-s",
    range: "0 to 86400",
    default: "600",
    meaning: "For how long browsers may remember the answer to a preflight.",
    read: |text, draft| set(&mut draft.settings.cors.max_age_s, number(text, 0, 86_400).map(Some)),
    keep: |last, draft| draft.settings.cors.max_age_s = last.settings.cors.max_age_s,
};

fn origins(text: &str) -> Option<Origins> {
    if text == "*" {
        return Some(Origins::Any);
    }
    entries(text, |origin| is_origin(origin).then(|| origin.to_owned())).map(Origins::These)
}

fn entries<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let entries: Vec<T> =
        text.split(',').map(|entry| read(entry.trim())).take(ENTRIES_MAX + 1).collect::<Option<_>>()?;
    (entries.len() <= ENTRIES_MAX).then_some(entries)
}

fn method(text: &str) -> Option<Method> {
    let plain =
        !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    plain.then(|| Method::try_from(text).ok()).flatten()
}

fn header(text: &str) -> Option<HeaderName> {
    HeaderName::try_from(text).ok().filter(|_| text.len() <= 128)
}
