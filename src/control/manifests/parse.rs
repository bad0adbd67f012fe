//! Manifests as text: documents of YAML, or JSON, to the objects in them.
//!
//! Kinds that are not ours are passed over, so the same files can be given to `kubectl apply`. What is ours must have
//! the right form. No message repeats anything of a Secret.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control::objects::{Kind, Object};

/// The longest message of a parser that is passed on.
const MESSAGE_MAX: usize = 300;

/// Why a text is no set of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, from 1.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

/// All objects of a text that are of our kinds.
pub fn parse(text: &str, is_json: bool) -> Result<Vec<Object>, Fault> {
    let mut objects = Vec::new();
    let mut known = HashSet::new();
    for document in documents(text, is_json) {
        let first = objects.len();
        document.read(&mut objects)?;
        for object in objects.iter().skip(first) {
            if object.meta().name.is_empty() {
                return Err(document.fault(format!("{} without metadata.name", object.kind().word())));
            }
            let key = object.key();
            if !known.insert(key.clone()) {
                return Err(document.fault(format!("{} {} is in the file twice", key.kind.word(), key.object)));
            }
        }
    }
    Ok(objects)
}

/// One document of a file.
#[derive(Clone, Copy)]
struct Document<'t> {
    text: &'t str,
    /// The line it begins at, from 1.
    line: u64,
    is_json: bool,
}

/// What tells documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    items: Option<Vec<Value>>,
}

/// Cuts a text at its document markers. A marker at the start of a line is one wherever it stands, also in a string.
fn documents(text: &str, is_json: bool) -> Vec<Document<'_>> {
    if is_json {
        return vec![Document { text, line: first_line(text), is_json }];
    }
    let mut starts = vec![(0, 1)];
    let mut at = 0;
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        let is_marker = content
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker {
            starts.push((at, line));
        }
        at += content.len();
    }
    let ends = starts.iter().skip(1).map(|&(at, _)| at).chain([text.len()]);
    let parts = starts.iter().zip(ends).filter_map(|(&(start, line), end)| Some((text.get(start..end)?, line)));
    parts.filter(|(text, _)| has_content(text)).map(|(text, line)| Document { text, line, is_json }).collect()
}

fn first_line(text: &str) -> u64 {
    1 + text.chars().take_while(|c| c.is_whitespace()).filter(|&c| c == '\n').count() as u64
}

/// Whether there is anything in it but comments, directives and the marker.
fn has_content(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
    })
}

impl Document<'_> {
    fn read(&self, objects: &mut Vec<Object>) -> Result<(), Fault> {
        let head: Head = self.decode().map_err(|(line, message)| Fault { line, message })?;
        let Some(kind) = head.kind else { return Err(self.fault("a document without kind".into())) };
        let version = head.api_version.unwrap_or_default();
        if let (Some(listed), Some(items)) = (kind.strip_suffix("List"), head.items) {
            for item in items {
                objects.extend(self.item(item, listed, &version)?);
            }
            return Ok(());
        }
        match self.kind(&kind, &version)? {
            None => {}
            Some(Kind::Service) => objects.push(Object::Service(Box::new(self.typed(Kind::Service)?))),
            Some(Kind::EndpointSlice) => {
                objects.push(Object::EndpointSlice(Box::new(self.typed(Kind::EndpointSlice)?)));
            }
            Some(Kind::Secret) => objects.push(Object::Secret(Box::new(self.typed(Kind::Secret)?))),
        }
        Ok(())
    }

    /// An item of a list. In a `ServiceList` the items need not say what they are.
    fn item(&self, item: Value, listed: &str, list_version: &str) -> Result<Option<Object>, Fault> {
        let text = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned);
        let kind = text("kind").unwrap_or_else(|| listed.to_owned());
        let version = text("apiVersion").unwrap_or_else(|| list_version.to_owned());
        let Some(kind) = self.kind(&kind, &version)? else { return Ok(None) };
        let object = match kind {
            Kind::Service => serde_json::from_value(item).map(|object| Object::Service(Box::new(object))),
            Kind::EndpointSlice => serde_json::from_value(item).map(|object| Object::EndpointSlice(Box::new(object))),
            Kind::Secret => serde_json::from_value(item).map(|object| Object::Secret(Box::new(object))),
        };
        object.map(Some).map_err(|error| self.fault(wrong_form(kind, &error.to_string())))
    }

    /// Which of our kinds it is, if it is one.
    fn kind(&self, kind: &str, version: &str) -> Result<Option<Kind>, Fault> {
        match (kind, version) {
            ("Service", "v1") => Ok(Some(Kind::Service)),
            ("Secret", "v1") => Ok(Some(Kind::Secret)),
            ("EndpointSlice", "discovery.k8s.io/v1") => Ok(Some(Kind::EndpointSlice)),
            ("EndpointSlice", _) => {
                Err(self.fault("an EndpointSlice must have the apiVersion discovery.k8s.io/v1".into()))
            }
            ("Service" | "Secret", "") => Err(self.fault(format!("a {kind} must have the apiVersion v1"))),
            _ => Ok(None),
        }
    }

    fn typed<T: DeserializeOwned>(&self, kind: Kind) -> Result<T, Fault> {
        self.decode().map_err(|(line, message)| Fault { line, message: wrong_form(kind, &message) })
    }

    fn decode<T: DeserializeOwned>(&self) -> Result<T, (u64, String)> {
        if self.is_json {
            return serde_json::from_str(self.text).map_err(|error| (error.line() as u64, cut(&error.to_string())));
        }
        serde_saphyr::from_str(self.text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            (self.line + line.max(1) - 1, cut(&error.without_snippet().to_string()))
        })
    }

    fn fault(&self, message: String) -> Fault {
        Fault { line: self.line, message }
    }
}

fn wrong_form(kind: Kind, message: &str) -> String {
    match kind {
        Kind::Secret => "the Secret does not have the form of one: data must be base64, stringData text".into(),
        Kind::Service | Kind::EndpointSlice => format!("the {} does not have the form of one: {message}", kind.word()),
    }
}

/// The first line of a message, without the position that parsers append: it counts from the start of the document.
fn cut(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split_once(" at line ").map_or(line, |(before, _)| before);
    line.chars().take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<String> {
        let objects = parse(text, false).unwrap();
        objects.iter().map(|object| format!("{} {}", object.kind().word(), object.meta().object())).collect()
    }

    fn fault(text: &str, is_json: bool) -> Fault {
        parse(text, is_json).unwrap_err()
    }

    #[test]
    fn our_kinds_are_read_and_all_others_passed_over() {
        let text = "\
# comment
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: ml}
--- # the next
apiVersion: apps/v1
kind: Deployment
metadata: {name: b}
spec: {selector: {matchLabels: {x: y}}, replicas: 3}
---
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: c}
spec: {selector: [1, 2]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: d}
addressType: IPv4
endpoints:
- addresses: [\"127.0.0.1\"]
ports: [{port: 80, name: http}]
...
---
apiVersion: v1
kind: Secret
metadata: {name: e}
stringData: {primaryKey: abc}
";
        assert_eq!(kinds(text), ["Service ml/a", "EndpointSlice default/d", "Secret default/e"]);
        assert_eq!(kinds(""), [""; 0]);
        assert_eq!(kinds("# nothing\n---\n"), [""; 0]);
    }

    #[test]
    fn lists_are_opened() {
        let text = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}}
- {apiVersion: v1, kind: Pod, metadata: {name: b}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSliceList
items: [{metadata: {name: c}, addressType: IPv6}]
";
        assert_eq!(kinds(text), ["Service default/a", "EndpointSlice default/c"]);
    }

    #[test]
    fn json_is_read_too() {
        let text = "\n{\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}\n";
        assert_eq!(parse(text, true).unwrap().len(), 1);
        assert_eq!(fault("{\n\"kind\": }", true).line, 2);
    }

    #[test]
    fn faults_name_the_line_in_the_file() {
        let text = "apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: [a, b]\n";
        let found = fault(text, false);
        assert_eq!(found.line, 7, "{found:?}");
        assert!(found.message.starts_with("the Service does not have the form of one: "), "{found:?}");
        assert!(!found.message.contains("line"), "{found:?}");
        assert_eq!(fault("kind: Pod\n---\nkind: {\n", false).line / 2, 1);
        assert_eq!(fault("a: 1\n", false), Fault { line: 1, message: "a document without kind".into() });
        let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
        let twice = fault(&service.repeat(2), false);
        assert_eq!(twice, Fault { line: 5, message: "Service default/a is in the file twice".into() });
        let old = "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\n";
        assert!(fault(old, false).message.contains("discovery.k8s.io/v1"));
        assert!(fault("apiVersion: v1\nkind: Service\n", false).message.contains("metadata.name"));
    }

    #[test]
    fn no_fault_repeats_a_secret() {
        for data in ["data: {primaryKey: s3cret!}", "stringData: {primaryKey: [s3cret]}", "data: s3cret"] {
            let found = fault(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\n{data}\n"), false);
            assert!(!found.message.contains("s3cret"), "{found:?}");
            let list =
                format!("kind: List\nitems:\n- {{apiVersion: v1, kind: Secret, metadata: {{name: a}}, {data}}}\n");
            assert!(!fault(&list, false).message.contains("s3cret"));
        }
    }
}
