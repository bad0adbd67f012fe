//! The shapes of traffic, who is measured under each, and the bars.

/// One shape of traffic.
pub struct Shape {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// What it is, for tables and pictures.
    pub about: &'static str,
    /// What is sent.
    pub load: Load,
    /// What answers.
    pub replica: Replica,
    /// Whether clients speak TLS.
    pub tls: bool,
    /// Who is measured.
    pub front_ends: &'static [FrontEnd],
    /// What Scorefront must keep to.
    pub bars: &'static [Bar],
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// By wrk, on this many connections, which are kept or made anew for each request.
    Requests { connections: u32, body: Body, keeps: bool },
    /// By h2load, on 16 connections with 16 streams each.
    Http2,
    /// Each on a new connection after a full TLS handshake.
    Handshakes,
    /// 64 streams of events.
    Events,
}

/// The body of each request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// 47 bytes of JSON.
    Small,
    /// 1 MiB.
    Big,
}

/// What answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Replica {
    /// nginx, at once, on connections that are kept.
    Instant,
    /// nginx, at once, on connections that are closed after each answer.
    Closing,
    /// This program, after it has read the whole body.
    Reading,
    /// This program, with 1 MiB.
    Big,
    /// This program, with events.
    Events,
}

/// A front-end, and how it is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FrontEnd {
    Floor,
    Nginx,
    NginxLog,
    NginxUnbuffered,
    Haproxy,
    Envoy,
    /// Among this many deployments.
    Scorefront(usize),
}

/// The most that a request may cost Scorefront.
pub struct Bar {
    /// Of what it costs the best of these.
    pub of: &'static [&'static str],
    /// Times that.
    pub max: f64,
}

/// Deployments in the table of every shape but `table`.
pub const DEPLOYMENTS: usize = 100;

/// Deployments in the large table of `table`.
const MANY: usize = 10_000;

const SMALL: Load = Load::Requests { connections: 64, body: Body::Small, keeps: true };

use FrontEnd::{Envoy, Floor, Haproxy, Nginx, NginxLog, NginxUnbuffered, Scorefront};

/// All of them.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "small",
        about: "small POST, 64 connections kept",
        load: SMALL,
        replica: Replica::Instant,
        tls: false,
        front_ends: &[Floor, Nginx, NginxLog, Haproxy, Envoy, Scorefront(DEPLOYMENTS)],
        bars: &[
            Bar { of: &["nginx+log"], max: 1.0 },
            Bar { of: &["envoy+log"], max: 0.45 },
            Bar { of: &["l4-floor"], max: 1.5 },
        ],
    },
    Shape {
        name: "tls",
        about: "the same over TLS 1.3",
        load: SMALL,
        replica: Replica::Instant,
        tls: true,
        front_ends: &[NginxLog, Haproxy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["nginx+log", "haproxy"], max: 0.95 }],
    },
    Shape {
        name: "handshake",
        about: "full TLS 1.3 handshake per request",
        load: Load::Handshakes,
        replica: Replica::Instant,
        tls: true,
        front_ends: &[NginxLog, Haproxy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["nginx+log"], max: 0.65 }],
    },
    Shape {
        name: "fresh",
        about: "new plaintext connection per request",
        load: Load::Requests { connections: 64, body: Body::Small, keeps: false },
        replica: Replica::Instant,
        tls: false,
        front_ends: &[NginxLog, Haproxy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["nginx+log", "haproxy"], max: 1.0 }],
    },
    Shape {
        name: "closing",
        about: "replicas that close after each answer",
        load: SMALL,
        replica: Replica::Closing,
        tls: false,
        front_ends: &[NginxLog, Haproxy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["haproxy"], max: 1.0 }],
    },
    Shape {
        name: "upload",
        about: "1 MiB request bodies, 16 connections",
        load: Load::Requests { connections: 16, body: Body::Big, keeps: true },
        replica: Replica::Reading,
        tls: false,
        front_ends: &[NginxUnbuffered, Haproxy, Envoy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["haproxy"], max: 0.6 }],
    },
    Shape {
        name: "download",
        about: "1 MiB answers, 16 connections",
        load: Load::Requests { connections: 16, body: Body::Small, keeps: true },
        replica: Replica::Big,
        tls: false,
        front_ends: &[NginxUnbuffered, Haproxy, Envoy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["haproxy"], max: 0.6 }],
    },
    Shape {
        name: "events",
        about: "64 streams of 100 events a second, per event",
        load: Load::Events,
        replica: Replica::Events,
        tls: false,
        front_ends: &[Floor, NginxUnbuffered, Haproxy, Envoy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["nginx-unbuffered"], max: 0.8 }],
    },
    Shape {
        name: "http2",
        about: "HTTP/2 clients, 16 connections of 16 streams",
        load: Load::Http2,
        replica: Replica::Instant,
        tls: false,
        front_ends: &[NginxLog, Haproxy, Envoy, Scorefront(DEPLOYMENTS)],
        bars: &[Bar { of: &["nginx+log"], max: 0.8 }, Bar { of: &["envoy+log"], max: 0.45 }],
    },
    Shape {
        name: "table",
        about: "10,000 deployments in the table instead of one",
        load: SMALL,
        replica: Replica::Instant,
        tls: false,
        front_ends: &[Scorefront(1), Scorefront(MANY)],
        bars: &[Bar { of: &["scorefront-1"], max: 1.05 }],
    },
];

impl Shape {
    /// How many times longer than others' its rounds are.
    pub fn stretch(&self) -> u32 {
        // Events leave most of the core idle, and the kernel tells the time that was used in hundredths of a second.
        let leaves_idle = self.load == Load::Events;
        // Each round has a scrape, which is of as many lines as there are deployments, and nobody scrapes every two seconds.
        let has_long_scrape = self.front_ends.contains(&Scorefront(MANY));
        if leaves_idle || has_long_scrape { 2 } else { 1 }
    }
}

impl FrontEnd {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Floor => "l4-floor",
            Nginx => "nginx",
            NginxLog => "nginx+log",
            NginxUnbuffered => "nginx-unbuffered",
            Haproxy => "haproxy",
            Envoy => "envoy+log",
            Scorefront(1) => "scorefront-1",
            Scorefront(DEPLOYMENTS) => "scorefront",
            Scorefront(_) => "scorefront-10000",
        }
    }

    /// Whether the bars are about it.
    pub fn is_judged(self) -> bool {
        matches!(self, Scorefront(deployments) if deployments != 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_about_front_ends_that_are_measured() {
        for shape in SHAPES {
            let names: Vec<_> = shape.front_ends.iter().map(|front_end| front_end.name()).collect();
            assert_eq!(shape.front_ends.iter().filter(|front_end| front_end.is_judged()).count(), 1, "{}", shape.name);
            assert!(!shape.bars.is_empty(), "{} has no bar", shape.name);
            for bar in shape.bars {
                assert!(bar.of.iter().all(|name| names.contains(name)), "{}: {:?}", shape.name, bar.of);
            }
        }
    }

    #[test]
    fn names_of_shapes_are_unique() {
        let mut names: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SHAPES.len());
    }
}
