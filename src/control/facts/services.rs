//! From a Service to a deployment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::{NAME_RANGE, is_name};
use super::{
    DEPLOYMENT_LABEL, Deployment, Draft, ENDPOINT_LABEL, Parsed, Reporter, Said, V1_LABEL, V1_NAME_LABEL, annotations,
    shown,
};
use crate::control::objects::{Meta, Service};
use crate::core::facts::{DeploymentFacts, Form, Name};

/// The most characters of an endpoint's and a deployment's name together.
const NAMES_MAX: usize = 62;

/// Reads a Service. `last` is what the version before it came to, if it was the same object.
pub fn parse_service(service: &Service, last: Option<&Deployment>) -> Parsed {
    let meta = &service.metadata;
    let object = meta.object();
    let mut reporter = Reporter::new("Service", &object);
    let none = BTreeMap::new();
    let notes = meta.annotations.as_ref().unwrap_or(&none);
    let Some(names) = Names::find(service) else {
        if let Some(ours) = notes.keys().find(|name| name.starts_with(annotations::PREFIX)) {
            reporter.report(
                ours,
                format!("has no effect: the Service is no deployment; it needs the labels {ENDPOINT_LABEL} and {DEPLOYMENT_LABEL}, on itself or in its selector"),
            );
        }
        return Parsed { said: Said::Deployment(None), problems: reporter.problems };
    };
    if !names.check(&mut reporter) {
        return Parsed { said: Said::Deployment(None), problems: reporter.problems };
    }
    let uid = meta.uid.as_deref().unwrap_or_default();
    let last = last.filter(|last| *last.facts.uid == *uid);
    let draft = annotations::read(notes, last.map(|last| &*last.draft), &mut reporter);
    let facts = DeploymentFacts {
        object: object.clone(),
        uid: uid.into(),
        created: created(meta, &mut reporter),
        form: names.form,
        endpoint: Name::new(names.endpoint),
        deployment: Name::new(names.deployment),
        settings: draft.settings(),
        traffic_percent: draft.traffic_percent,
        mirror_percent: draft.mirror_percent,
    };
    Parsed { said: Said::Deployment(Some(deployment(facts, draft, last))), problems: reporter.problems }
}

/// Shares what is the same as before: most updates of a Service do not concern the router.
fn deployment(facts: DeploymentFacts, draft: Draft, last: Option<&Deployment>) -> Deployment {
    match last {
        Some(last) if *last.facts == facts && *last.draft == draft => last.clone(),
        _ => Deployment { facts: Arc::new(facts), draft: Arc::new(draft) },
    }
}

struct Names<'a> {
    form: Form,
    endpoint: &'a str,
    deployment: &'a str,
    from: &'static str,
}

impl<'a> Names<'a> {
    /// Own labels before those of the selector, and endpoints before v1 services: pods of endpoints carry
    /// `isazuremlapp` too.
    fn find(service: &'a Service) -> Option<Self> {
        let labels = service.metadata.labels.as_ref().map(|labels| ("metadata.labels", labels));
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let places = [labels, selector.map(|selector| ("spec.selector", selector))];
        let endpoint = places.iter().flatten().find_map(|&(from, labels)| {
            let (endpoint, deployment) = (labels.get(ENDPOINT_LABEL)?, labels.get(DEPLOYMENT_LABEL)?);
            Some(Self { form: Form::Endpoint, endpoint, deployment, from })
        });
        endpoint.or_else(|| {
            places.iter().flatten().find_map(|&(from, labels)| {
                let name = labels.get(V1_NAME_LABEL).filter(|_| labels.get(V1_LABEL).is_some_and(|v| v == "true"))?;
                Some(Self { form: Form::Service, endpoint: name, deployment: name, from })
            })
        })
    }

    fn check(&self, reporter: &mut Reporter<'_>) -> bool {
        let labels: &[_] = match self.form {
            Form::Endpoint => &[(ENDPOINT_LABEL, self.endpoint), (DEPLOYMENT_LABEL, self.deployment)],
            Form::Service => &[(V1_NAME_LABEL, self.endpoint)],
        };
        for (label, name) in labels.iter().filter(|(_, name)| !is_name(name)) {
            let field = format!("{}[{label}]", self.from);
            reporter
                .report(field, format!("{} is no valid name: {NAME_RANGE}; the Service is not served", shown(name)));
        }
        let together = self.endpoint.len() + self.deployment.len();
        if reporter.problems.is_empty() && self.form == Form::Endpoint && together > NAMES_MAX {
            let field = format!("{}[{DEPLOYMENT_LABEL}]", self.from);
            let message = format!(
                "{} and the endpoint's name have {together} characters together, and at most {NAMES_MAX} are allowed; the Service is not served",
                shown(self.deployment)
            );
            reporter.report(field, message);
        }
        reporter.problems.is_empty()
    }
}

fn created(meta: &Meta, reporter: &mut Reporter<'_>) -> i64 {
    let Some(text) = &meta.creation_timestamp else { return 0 };
    match text.parse::<k8s_openapi::jiff::Timestamp>() {
        Ok(timestamp) => timestamp.as_second(),
        Err(_) => {
            let message =
                format!("{} is no time: RFC 3339, such as 2026-01-31T12:00:00Z; counts as the newest", shown(text));
            reporter.report("metadata.creationTimestamp", message);
            i64::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facts::AuthMode;

    fn service(json: serde_json::Value) -> Service {
        serde_json::from_value(json).unwrap()
    }

    fn parse(json: serde_json::Value) -> (Option<Deployment>, Vec<String>) {
        let parsed = parse_service(&service(json), None);
        let Said::Deployment(said) = parsed.said else { panic!("not a deployment") };
        (said, parsed.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_is_a_deployment_by_its_labels_or_its_selector() {
        let names = serde_json::json!({ENDPOINT_LABEL: "Iris", DEPLOYMENT_LABEL: "blue"});
        let by_label = serde_json::json!({
            "metadata": {"name": "s", "namespace": "ml", "uid": "u", "creationTimestamp": "1970-01-01T00:01:00Z", "labels": names}
        });
        let by_selector = serde_json::json!({
            "metadata": {"name": "s", "namespace": "ml", "labels": {"app": "x"}}, "spec": {"selector": names}
        });
        for json in [by_label, by_selector] {
            let (deployment, problems) = parse(json);
            let facts = deployment.unwrap().facts;
            assert_eq!(
                (facts.form, facts.endpoint.as_str(), facts.deployment.as_str()),
                (Form::Endpoint, "Iris", "blue")
            );
            assert_eq!(facts.object.to_string(), "ml/s");
            assert!(problems.is_empty());
            assert!(facts.created == 60 || facts.uid.is_empty());
        }
    }

    #[test]
    fn a_v1_service_is_its_own_deployment() {
        let labels = serde_json::json!({V1_LABEL: "true", V1_NAME_LABEL: "old-svc"});
        let (deployment, _) = parse(serde_json::json!({"metadata": {"name": "s"}, "spec": {"selector": labels}}));
        let facts = deployment.unwrap().facts;
        assert_eq!(
            (facts.form, facts.endpoint.as_str(), facts.deployment.as_str()),
            (Form::Service, "old-svc", "old-svc")
        );
        for labels in [
            serde_json::json!({V1_LABEL: "false", V1_NAME_LABEL: "old-svc"}),
            serde_json::json!({V1_NAME_LABEL: "azureml-fe"}),
            serde_json::json!({V1_LABEL: "true"}),
            serde_json::json!({ENDPOINT_LABEL: "iris"}),
        ] {
            let (deployment, problems) = parse(serde_json::json!({"metadata": {"name": "s", "labels": labels}}));
            assert!(deployment.is_none() && problems.is_empty());
        }
    }

    #[test]
    fn pods_of_endpoints_that_also_carry_the_v1_labels_are_endpoints() {
        let labels = serde_json::json!({
            V1_LABEL: "true", V1_NAME_LABEL: "old", ENDPOINT_LABEL: "iris", DEPLOYMENT_LABEL: "blue"
        });
        let (deployment, _) = parse(serde_json::json!({"metadata": {"name": "s", "labels": labels}}));
        assert_eq!(deployment.unwrap().facts.form, Form::Endpoint);
    }

    #[test]
    fn bad_names_are_refused_and_reported() {
        for (endpoint, deployment, count) in
            [("ir", "blue", 1), ("iris", "b_e", 1), ("1", "2", 2), (&*"e".repeat(32), &*"d".repeat(31), 1)]
        {
            let labels = serde_json::json!({ENDPOINT_LABEL: endpoint, DEPLOYMENT_LABEL: deployment});
            let (said, problems) = parse(serde_json::json!({"metadata": {"name": "s", "labels": labels}}));
            assert!(said.is_none());
            assert_eq!(problems.len(), count, "{problems:?}");
        }
    }

    #[test]
    fn our_annotations_on_any_other_service_are_reported() {
        let notes = serde_json::json!({"scorefront.dev/auth-mode": "none"});
        let (said, problems) = parse(serde_json::json!({"metadata": {"name": "s", "annotations": notes}}));
        assert!(said.is_none() && problems.len() == 1, "{problems:?}");
    }

    #[test]
    fn the_last_good_value_is_forgotten_with_the_object() {
        let labels = serde_json::json!({ENDPOINT_LABEL: "iris", DEPLOYMENT_LABEL: "blue"});
        let version = |uid: &str, value: &str| {
            let notes = serde_json::json!({"scorefront.dev/max-queue-length": value});
            service(serde_json::json!({"metadata": {"name": "s", "uid": uid, "labels": labels, "annotations": notes}}))
        };
        let read = |service: &Service, last: Option<&Deployment>| match parse_service(service, last).said {
            Said::Deployment(Some(deployment)) => deployment,
            other => panic!("{other:?}"),
        };
        let first = read(&version("a", "7"), None);
        let second = read(&version("a", "x"), Some(&first));
        assert_eq!(second.facts.settings.queue_length_max, 7);
        let third = read(&version("a", "y"), Some(&second));
        assert_eq!(third.facts.settings.queue_length_max, 7);
        let other = read(&version("b", "x"), Some(&first));
        assert_eq!(other.facts.settings.queue_length_max, 1000);
        assert_eq!(other.facts.settings.auth, AuthMode::Key);
    }

    #[test]
    fn a_service_with_an_impossible_time_never_counts_as_oldest() {
        let labels = serde_json::json!({ENDPOINT_LABEL: "iris", DEPLOYMENT_LABEL: "blue"});
        let (said, problems) =
            parse(serde_json::json!({"metadata": {"name": "s", "labels": labels, "creationTimestamp": "yesterday"}}));
        assert_eq!((said.unwrap().facts.created, problems.len()), (i64::MAX, 1));
    }
}
