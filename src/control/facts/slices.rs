//! From an EndpointSlice to addresses with conditions.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Parsed, Reporter, SERVICE_LABEL, Said, shown};
use crate::control::objects::{EndpointSlice, SliceEndpoint, SlicePort};
use crate::core::facts::{AddressFacts, SliceFacts};

/// The most addresses that one slice may have: what the API server allows.
const ADDRESSES_MAX: usize = 1000;

/// Reads an EndpointSlice. Loopback and link-local addresses are the router's own machine, so only sources that
/// belong to its operator (`is_trusted`) may name them.
pub fn parse_slice(slice: &EndpointSlice, is_trusted: bool) -> Parsed {
    let object = slice.metadata.object();
    let mut reporter = Reporter::new("EndpointSlice", &object);
    let silent = |problems| Parsed { said: Said::Slice(None), problems };
    let Some(service) = slice.metadata.label(SERVICE_LABEL) else { return silent(reporter.finish()) };
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        let value = shown(&slice.address_type);
        reporter.report("addressType", format!("{value} is not allowed: IPv4, IPv6; the slice is not used"));
        return silent(reporter.finish());
    }
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > ADDRESSES_MAX {
        let count = endpoints.len();
        reporter.report("endpoints", format!("{count} are too many: at most {ADDRESSES_MAX}; the rest is not used"));
    }
    let mut addresses = Vec::with_capacity(endpoints.len().min(ADDRESSES_MAX));
    for endpoint in endpoints.iter().take(ADDRESSES_MAX) {
        addresses.extend(address(endpoint, &slice.address_type, is_trusted, &mut reporter));
    }
    let ports = slice.ports.as_deref().unwrap_or_default().iter().filter_map(|p| port(p, &mut reporter)).collect();
    let facts = SliceFacts { object: object.clone(), service: service.into(), ports, addresses };
    Parsed { said: Said::Slice(Some(Arc::new(facts))), problems: reporter.finish() }
}

fn address(
    endpoint: &SliceEndpoint,
    family: &str,
    is_trusted: bool,
    reporter: &mut Reporter<'_>,
) -> Option<AddressFacts> {
    // All addresses of an endpoint lead to the same pod, and Kubernetes itself uses none but the first.
    let text = endpoint.addresses.first()?;
    let allowed = match text.parse::<IpAddr>() {
        Err(_) => Err("an IP address"),
        Ok(ip) if ip.is_ipv4() != (family == "IPv4") => Err("an address of the slice's addressType"),
        Ok(ip) if !is_usable(ip, is_trusted) => Err("the address of a pod, not of this machine or of a group"),
        Ok(ip) => Ok(ip),
    };
    let ip = match allowed {
        Ok(ip) => ip,
        Err(allowed) => {
            reporter.report("endpoints.addresses", format!("{} is not allowed: {allowed}", shown(text)));
            return None;
        }
    };
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let target = endpoint.target_ref.as_ref();
    let some = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Arc::from);
    Some(AddressFacts {
        ip,
        pod_uid: target.and_then(|target| some(&target.uid)),
        pod_name: target.and_then(|target| some(&target.name)),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
    })
}

pub(in crate::control) fn is_usable(ip: IpAddr, is_trusted: bool) -> bool {
    let ip = ip.to_canonical();
    let own = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let group = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    !group && (is_trusted || !own)
}

fn port(port: &SlicePort, reporter: &mut Reporter<'_>) -> Option<(Option<Arc<str>>, u16)> {
    if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
        return None;
    }
    let name = port.name.as_deref().filter(|name| !name.is_empty()).map(Arc::from);
    match u16::try_from(port.port?) {
        Ok(number) if number > 0 => Some((name, number)),
        _ => {
            reporter.report("ports.port", format!("{} is not allowed: 1 to 65535", port.port?));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: serde_json::Value, is_trusted: bool) -> (Option<Arc<SliceFacts>>, Vec<String>) {
        let slice: EndpointSlice = serde_json::from_value(json).unwrap();
        let parsed = parse_slice(&slice, is_trusted);
        let Said::Slice(said) = parsed.said else { panic!("not a slice") };
        (said, parsed.problems.iter().map(ToString::to_string).collect())
    }

    fn slice(family: &str, endpoints: serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "metadata": {"name": "iris-x1", "namespace": "ml", "labels": {SERVICE_LABEL: "iris-blue"}},
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 5001}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "all"}]
        })
    }

    #[test]
    fn conditions_have_the_defaults_of_kubernetes() {
        let endpoints = serde_json::json!([
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.4"], "conditions": {}, "targetRef": {"kind": "Pod", "uid": "u4", "name": "p4"}}
        ]);
        let (facts, problems) = parse(slice("IPv4", endpoints), false);
        let facts = facts.unwrap();
        let read: Vec<_> = facts.addresses.iter().map(|a| [a.ready, a.serving, a.terminating]).collect();
        assert_eq!(read, [[true, true, false], [false, false, false], [false, true, true], [true, true, false]]);
        assert_eq!(facts.addresses[3].pod_uid.as_deref(), Some("u4"));
        assert_eq!(facts.addresses[3].pod_name.as_deref(), Some("p4"));
        assert_eq!(facts.ports, [(Some("http".into()), 5001)]);
        assert!(problems.is_empty());
    }

    #[test]
    fn slices_of_names_are_refused_with_a_message() {
        let (facts, problems) = parse(slice("FQDN", serde_json::json!([{"addresses": ["a.example"]}])), true);
        assert!(facts.is_none());
        let expected =
            "EndpointSlice ml/iris-x1: addressType: \"FQDN\" is not allowed: IPv4, IPv6; the slice is not used";
        assert_eq!(problems, [expected]);
    }

    #[test]
    fn a_bad_address_costs_itself_and_no_other() {
        let endpoints = serde_json::json!([
            {"addresses": ["not-an-ip"]}, {"addresses": ["fd00::1"]}, {"addresses": ["224.0.0.1"]},
            {"addresses": []}, {"addresses": ["0.0.0.0"]}, {"addresses": ["10.0.0.1", "10.0.0.2"]}
        ]);
        let (facts, problems) = parse(slice("IPv4", endpoints), true);
        assert_eq!(facts.unwrap().addresses.len(), 1);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_slice_full_of_nonsense_fills_no_log() {
        let endpoints: Vec<_> = (0..500).map(|n| serde_json::json!({"addresses": [format!("host-{n}")]})).collect();
        let (_, problems) = parse(slice("IPv4", endpoints.into()), false);
        assert_eq!(problems.len(), 17);
        assert!(problems[16].ends_with("484 more problems of this object are not shown"), "{problems:?}");
    }

    #[test]
    fn the_routers_own_machine_is_reachable_for_manifests_alone() {
        for (family, ip) in
            [("IPv4", "127.0.0.1"), ("IPv4", "169.254.169.254"), ("IPv6", "::1"), ("IPv6", "::ffff:127.0.0.1")]
        {
            let json = slice(family, serde_json::json!([{"addresses": [ip]}]));
            assert_eq!(parse(json.clone(), true).0.unwrap().addresses.len(), 1, "{ip}");
            let (facts, problems) = parse(json, false);
            assert_eq!((facts.unwrap().addresses.len(), problems.len()), (0, 1), "{ip}");
        }
    }

    #[test]
    fn impossible_ports_are_reported() {
        let mut json = slice("IPv4", serde_json::json!([]));
        json["ports"] = serde_json::json!([{"port": 0}, {"port": 70000}, {"port": 80}]);
        let (facts, problems) = parse(json, false);
        assert_eq!(facts.unwrap().ports, [(None, 80)]);
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn a_slice_of_no_service_concerns_nobody() {
        let (facts, problems) = parse(serde_json::json!({"metadata": {"name": "x"}, "addressType": "FQDN"}), false);
        assert!(facts.is_none() && problems.is_empty());
    }
}
