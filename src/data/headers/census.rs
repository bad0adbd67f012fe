//! Which of the headers that the rules are about a message has.
//!
//! Made in one pass over the names. To ask the map for each costs a hash and a probe, and of all the headers that the
//! rules are about, a message usually has four or five.
//! Holds: what the census does not have the map does not have, unless it was put there since.

use http::header::{self, HeaderMap, HeaderName};

/// See the head of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    seen: u32,
    seen_again: u32,
    /// Of the lines of the headers, with `: ` and the end of the line.
    pub(crate) bytes: usize,
}

macro_rules! kinds {
    ($($name:ident),* $(,)?) => {
        /// One header, or several that the rules treat alike.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind {
            $($name),*
        }

        #[cfg(test)]
        const ALL: &[Kind] = &[$(Kind::$name),*];
    };
}

kinds! {
    Authorization,
    Close,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    ForwardedClientCert,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    Host,
    Http2Settings,
    KeepAlive,
    Lookalike,
    ModelDeployment,
    MsClientRequestId,
    MsRequestId,
    ProxyConnection,
    RealIp,
    RequestId,
    Te,
    Traceparent,
    Tracestate,
    TransferEncoding,
    Upgrade,
}

impl Kind {
    fn of(name: &HeaderName) -> Option<Self> {
        Some(match *name {
            header::AUTHORIZATION => Self::Authorization,
            header::CONNECTION => Self::Connection,
            header::CONTENT_LENGTH => Self::ContentLength,
            header::COOKIE => Self::Cookie,
            header::EXPECT => Self::Expect,
            header::FORWARDED => Self::Forwarded,
            header::HOST => Self::Host,
            header::TE => Self::Te,
            header::TRANSFER_ENCODING => Self::TransferEncoding,
            header::UPGRADE => Self::Upgrade,
            _ => return Self::of_others(name.as_str()),
        })
    }

    fn of_others(name: &str) -> Option<Self> {
        Some(match name {
            "close" => Self::Close,
            "x-real-ip" => Self::RealIp,
            "keep-alive" => Self::KeepAlive,
            "tracestate" => Self::Tracestate,
            "traceparent" => Self::Traceparent,
            "x-request-id" => Self::RequestId,
            "http2-settings" => Self::Http2Settings,
            "x-ms-request-id" => Self::MsRequestId,
            "x-forwarded-for" => Self::ForwardedFor,
            "proxy-connection" => Self::ProxyConnection,
            "x-forwarded-host" => Self::ForwardedHost,
            "x-forwarded-proto" => Self::ForwardedProto,
            "x-ms-client-request-id" => Self::MsClientRequestId,
            "x-forwarded-client-cert" => Self::ForwardedClientCert,
            "azureml-model-deployment" => Self::ModelDeployment,
            other if is_lookalike(other) => Self::Lookalike,
            _ => return None,
        })
    }
}

/// Headers by which the router tells a replica who the client is and which request this is.
const OWN: [&str; 8] = [
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-ms-client-request-id",
    "x-ms-request-id",
    "x-real-ip",
    "x-request-id",
];

/// Whether servers may take it for one of those though it is spelled otherwise: to WSGI and CGI `-` is `_`, and to some of
/// them so is every other sign. Nobody's proxy writes such names.
pub(super) fn is_lookalike(name: &str) -> bool {
    let is_alike = |(a, b): (u8, u8)| a == b || (b == b'-' && !a.is_ascii_alphanumeric());
    let reads_as = |own: &str| name.len() == own.len() && name.bytes().zip(own.bytes()).all(is_alike);
    name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-') && OWN.into_iter().any(reads_as)
}

impl Census {
    /// Of these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut census = Self::default();
        for (name, value) in headers {
            census.bytes += name.as_str().len() + value.len() + 4;
            if let Some(kind) = Kind::of(name) {
                let bit = 1 << kind as u8;
                census.seen_again |= census.seen & bit;
                census.seen |= bit;
            }
        }
        census
    }

    /// Whether there is one.
    pub(crate) fn has(self, kind: Kind) -> bool {
        self.seen & (1 << kind as u8) != 0
    }

    /// Whether there are several.
    pub(crate) fn has_several(self, kind: Kind) -> bool {
        self.seen_again & (1 << kind as u8) != 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use http::HeaderValue;

    /// Of all headers that there are rules about.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|kind| name(*kind))
    }

    /// As the map spells it.
    fn name(kind: Kind) -> &'static str {
        match kind {
            Kind::Authorization => "authorization",
            Kind::Close => "close",
            Kind::Connection => "connection",
            Kind::ContentLength => "content-length",
            Kind::Cookie => "cookie",
            Kind::Expect => "expect",
            Kind::Forwarded => "forwarded",
            Kind::ForwardedClientCert => "x-forwarded-client-cert",
            Kind::ForwardedFor => "x-forwarded-for",
            Kind::ForwardedHost => "x-forwarded-host",
            Kind::ForwardedProto => "x-forwarded-proto",
            Kind::Host => "host",
            Kind::Http2Settings => "http2-settings",
            Kind::KeepAlive => "keep-alive",
            Kind::Lookalike => "x_forwarded_client-cert",
            Kind::ModelDeployment => "azureml-model-deployment",
            Kind::MsClientRequestId => "x-ms-client-request-id",
            Kind::MsRequestId => "x-ms-request-id",
            Kind::ProxyConnection => "proxy-connection",
            Kind::RealIp => "x-real-ip",
            Kind::RequestId => "x-request-id",
            Kind::Te => "te",
            Kind::Traceparent => "traceparent",
            Kind::Tracestate => "tracestate",
            Kind::TransferEncoding => "transfer-encoding",
            Kind::Upgrade => "upgrade",
        }
    }

    #[test]
    fn every_header_is_seen_alone_and_none_for_another() {
        for &kind in ALL {
            let mut headers = HeaderMap::new();
            headers.append(name(kind).parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
            let census = Census::of(&headers);
            let seen: Vec<_> = ALL.iter().filter(|kind| census.has(**kind)).collect();
            assert_eq!(seen, [&kind]);
            assert!(!census.has_several(kind));
            assert_eq!(census.bytes, name(kind).len() + 5);
            headers.append(name(kind).parse::<HeaderName>().unwrap(), HeaderValue::from_static("2"));
            assert!(Census::of(&headers).has_several(kind));
        }
    }

    #[test]
    fn others_are_counted_but_not_seen() {
        let mut headers = HeaderMap::new();
        headers.insert("x-own", HeaderValue::from_static("12"));
        let census = Census::of(&headers);
        assert_eq!((census.seen, census.bytes), (0, 11));
    }
}
