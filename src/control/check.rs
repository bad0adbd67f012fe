//! What `scorefront check` prints: a table of what would be served, and one line for each problem.

use std::fmt::Write;
use std::sync::Arc;

use crate::core::facts::{Problem, Settings};
use crate::core::replica_tls::Wire;
use crate::core::snapshot::{Access, Deployment, Endpoint, Snapshot};

/// The most addresses that one line shows.
const ADDRESSES_MAX: usize = 4;

const HEAD: [&str; 12] = [
    "KIND",
    "NAME",
    "NAMESPACE",
    "DEPLOYMENT",
    "TRAFFIC",
    "COPIES",
    "SLOTS",
    "QUEUE",
    "TIMEOUT",
    "PATH",
    "AUTH",
    "REPLICAS",
];

/// The table, and the problems after it.
pub fn render(snapshot: &Snapshot, problems: &[Problem]) -> String {
    let mut endpoints: Vec<_> = snapshot.endpoints().collect();
    endpoints.sort_by(|a, b| (a.form, &a.name).cmp(&(b.form, &b.name)));
    let mut rows = vec![HEAD.map(str::to_owned)];
    for endpoint in endpoints {
        rows.extend(endpoint.deployments.iter().map(|deployment| row(endpoint, deployment)));
    }
    let mut text = String::new();
    if rows.len() == 1 {
        text.push_str("nothing to serve: no Service carries the labels of a deployment\n");
    } else {
        write_table(&rows, &mut text);
    }
    for problem in problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    text
}

fn row(endpoint: &Endpoint, deployment: &Arc<Deployment>) -> [String; 12] {
    let settings = &deployment.settings;
    let mirror = endpoint.mirror.as_ref().filter(|mirror| Arc::ptr_eq(&mirror.deployment, deployment));
    [
        endpoint.form.word().to_owned(),
        endpoint.name.to_string(),
        endpoint.namespace.to_string(),
        deployment.name.to_string(),
        traffic(endpoint, deployment),
        mirror.map_or_else(|| "-".to_owned(), |mirror| format!("{} %", mirror.percent)),
        match settings.slots_per_replica {
            Settings::UNLIMITED => "unlimited".to_owned(),
            slots => format!("{slots} each"),
        },
        queue(settings),
        format!("{} ms", settings.request_timeout.as_millis()),
        settings.scoring_path.to_string(),
        match &endpoint.access {
            Access::Open => "open".to_owned(),
            Access::Keys(keys) if keys.is_empty() => "nobody".to_owned(),
            Access::Keys(keys) => format!("{} keys", keys.len()),
            Access::Token => "token".to_owned(),
        },
        replicas(deployment),
    ]
}

/// The share that it gets, which is not always the one that was set.
fn traffic(endpoint: &Endpoint, deployment: &Deployment) -> String {
    let sum = endpoint.split.sum();
    let alone = endpoint.deployments.len() == 1;
    let percent = u32::from(deployment.traffic_percent.unwrap_or(if alone { 100 } else { 0 }));
    match sum {
        0 | 100 => format!("{percent} %"),
        _ => format!("{percent} of {sum}"),
    }
}

fn queue(settings: &Settings) -> String {
    if settings.queue_wait_max.is_zero() || settings.queue_length_max == 0 {
        return "none".to_owned();
    }
    format!("{} for {} ms", settings.queue_length_max, settings.queue_wait_max.as_millis())
}

fn replicas(deployment: &Deployment) -> String {
    let mut text = format!("{} ready", deployment.replicas.len());
    if !deployment.finishing.is_empty() {
        let _ = write!(text, ", {} not", deployment.finishing.len());
    }
    let addresses: Vec<_> = deployment.replicas.iter().take(ADDRESSES_MAX).map(|r| r.address.to_string()).collect();
    if !addresses.is_empty() {
        let more = if deployment.replicas.len() > ADDRESSES_MAX { ", ..." } else { "" };
        let _ = write!(text, " ({}{more})", addresses.join(", "));
    }
    match &deployment.wire {
        Wire::Plain => {}
        Wire::Tls(tls) => drop(write!(text, ", TLS for {}", tls.server_name)),
        Wire::Closed(_) => text.push_str(", closed"),
    }
    text
}

fn write_table(rows: &[[String; 12]], text: &mut String) {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..HEAD.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
