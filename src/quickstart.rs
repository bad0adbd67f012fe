//! `scorefront quickstart`: the main job on loopback, without a cluster.
//!
//! Three sample replicas and the objects that describe them; the router in front is the ordinary one. Ports that are
//! taken are replaced by free ones, so that it works the first time.

mod manifests;
mod model;

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::Context as _;

use self::model::Model;
use crate::app::Addresses;

/// Running sample replicas, and what the router needs to know of them.
#[derive(Debug)]
pub struct Samples {
    /// The objects, as YAML.
    pub manifests: String,
    /// The primary key of endpoint `iris`.
    pub key: String,
}

/// Starts the sample replicas: two of deployment `blue`, one of `green`.
pub async fn start() -> anyhow::Result<Samples> {
    let mut addresses = Vec::new();
    for version in ["blue", "blue", "green"] {
        let model = Model::bind(version).await.context("sample replica: no free port on loopback")?;
        addresses.push(model.address()?);
        tokio::spawn(model.serve());
    }
    let (blue, green) = addresses.split_at(2);
    let (key, secondary) = (make_key()?, make_key()?);
    Ok(Samples { manifests: manifests::render(&key, &secondary, blue, green), key })
}

fn make_key() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random numbers to be had"))?;
    Ok(bytes.iter().fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    }))
}

/// The address, or a free port beside it where it is taken.
pub fn free(address: SocketAddr) -> SocketAddr {
    match std::net::TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

/// What to try, ready to paste.
pub fn guide(addresses: &Addresses, key: &str) -> String {
    let admin = addresses.admin;
    let Some(listen) = addresses.listen.first() else { return String::new() };
    let url = format!("http://{listen}/api/v1/endpoint/iris/score");
    let data = r#"'{"data": [[5.1, 3.5, 1.4, 0.2]]}'"#;
    format!(
        "\
Scorefront is ready: endpoint iris, deployments blue (90 %, two replicas) and green (10 %, one replica).
Each replica takes one request at a time, as the stock Azure ML model server does. Paste into another terminal:

# Score: the answer names the flower and the deployment that served it
curl -i {url} -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d {data}

# Choose the deployment
curl -i {url} -H 'Authorization: Bearer {key}' -H 'azureml-model-deployment: green' -d {data}

# A wrong key is refused
curl -i {url} -H 'Authorization: Bearer wrong' -d {data}

# Ten at once for three slots: watch them queue (QueueDurationMs in the access log says for how long)
seq 10 | xargs -P 10 -I @ curl -s -o /dev/null -w '%{{http_code}} %{{time_total}} s\\n' {url} -H 'Authorization: Bearer {key}' -d {data}

# Metrics, readiness, and the world as it is routed
curl -s http://{admin}/metrics | grep ^scorefront_requests_total
curl -s http://{admin}/readyz
curl -s http://{admin}/debug/snapshot

The access log follows, one JSON line for each request. Ctrl-C drains and ends.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_objects_are_served_as_they_stand() {
        let samples = start().await.unwrap();
        let discovery = crate::control::discovery::Discovery {
            sources: vec![crate::control::discovery::Source::Text {
                name: "quickstart".into(),
                text: samples.manifests,
            }],
            namespaces: Vec::new(),
            workers: 1,
            router: Default::default(),
            state_file: None,
        };
        let patience = std::time::Duration::from_secs(10);
        let (snapshot, problems) = crate::control::discovery::load(discovery, patience).await.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let iris = snapshot.find(crate::core::facts::Form::Endpoint, "iris").unwrap();
        let replicas: Vec<usize> = iris.deployments.iter().map(|deployment| deployment.replicas.len()).collect();
        assert_eq!(replicas, [2, 1]);
    }
}
