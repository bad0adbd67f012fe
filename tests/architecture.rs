//! The law of the source tree, read from the sources: who may import whom, and how files look.
//!
//! A path is found wherever it stands, in a `use` or in an expression; comments, strings and test modules do not
//! count. A file that breaks a law is named with its line, and the law says why it is one.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot read the sources has failed")]

#[path = "architecture/sources.rs"]
mod sources;

use sources::{is_within, read, root, rust_files, sources};

/// What a plane must not reach: a path that starts with one of these is a breach.
struct Law {
    plane: &'static str,
    forbidden: &'static [&'static str],
    why: &'static str,
}

const LAWS: &[Law] = &[
    Law {
        plane: "core",
        forbidden: &[
            "crate::app",
            "crate::control",
            "crate::data",
            "crate::ops",
            "hyper",
            "hyper_util",
            "k8s_openapi",
            "kube",
            "prometheus_client",
            "rustls",
            "serde_json",
            "serde_saphyr",
            "socket2",
            "std::fs",
            "std::io",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::thread",
            "tokio",
            "tower",
            "tracing",
        ],
        why: "core decides on values: no I/O, no runtime, no other plane",
    },
    Law {
        plane: "core",
        forbidden: &["std::time::Instant::now", "std::time::SystemTime::now", "Instant::now", "SystemTime::now"],
        why: "core is told the time",
    },
    Law {
        plane: "ops",
        forbidden: &["crate::app", "crate::control", "crate::data", "k8s_openapi", "kube"],
        why: "ops watches the planes through core and knows neither of the two that use it",
    },
    Law {
        plane: "control",
        forbidden: &["crate::app", "crate::data", "hyper::server", "hyper_util::server"],
        why: "control and data meet at the snapshot only",
    },
    Law {
        plane: "data",
        forbidden: &["crate::app", "crate::control", "k8s_openapi", "kube", "serde_json", "serde_saphyr", "dashmap"],
        why: "the request path knows the snapshot, not where it came from, and parses nothing but HTTP",
    },
];

/// Where a status is chosen; everything else passes on what it got. The quick start plays model servers of its own.
const STATUS_CHOOSERS: &[&str] = &["core/outcome.rs", "data/respond.rs", "ops/admin.rs", "ops/admin/", "quickstart/"];

/// An upgrade is a fact of the protocol, not a choice.
const STATUS_FACTS: &[&str] = &["StatusCode::SWITCHING_PROTOCOLS"];

const LINES_MAX: usize = 400;

#[test]
fn planes_import_only_what_the_law_allows() {
    let mut breaches = Vec::new();
    for source in sources() {
        for law in LAWS.iter().filter(|law| source.is_in(law.plane)) {
            for (line, path) in source.paths() {
                if law.forbidden.iter().any(|forbidden| is_within(&path, forbidden)) {
                    breaches.push(format!("src/{}:{line}: {path}: {}", source.name, law.why));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "imports against the law:\n{}", breaches.join("\n"));
}

#[test]
fn only_what_starts_a_router_imports_the_composition_root_and_nothing_shipped_imports_testing() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_in("testing")) {
        for (line, path) in source.paths() {
            let app =
                is_within(&path, "crate::app") && !["app", "main", "quickstart"].iter().any(|root| source.is_in(root));
            if app || is_within(&path, "crate::testing") {
                breaches.push(format!("src/{}:{line}: {path}", source.name));
            }
        }
    }
    assert!(breaches.is_empty(), "imports of what is nobody's to import:\n{}", breaches.join("\n"));
}

#[test]
fn a_status_is_chosen_in_few_places() {
    let mut breaches = Vec::new();
    for source in sources() {
        if source.is_in("testing") || STATUS_CHOOSERS.iter().any(|chooser| source.name.starts_with(chooser)) {
            continue;
        }
        for (line, path) in source.paths() {
            let constant = path.rsplit("::").next().is_some_and(|word| word.chars().all(|c| !c.is_ascii_lowercase()));
            let fact = STATUS_FACTS.iter().any(|fact| path.ends_with(fact));
            if path.contains("StatusCode::") && constant && !fact {
                breaches.push(format!("src/{}:{line}: {path}", source.name));
            }
        }
    }
    assert!(breaches.is_empty(), "statuses chosen outside {STATUS_CHOOSERS:?}:\n{}", breaches.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut breaches = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            breaches.push(format!("src/{}: does not begin with a `//!` header", source.name));
        }
        let lines = source.shipped().lines().count();
        if lines > LINES_MAX {
            breaches.push(format!("src/{}: {lines} lines without tests, {LINES_MAX} at most", source.name));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn modules_are_files_of_their_name() {
    let strays: Vec<_> = rust_files(&root().join("src")).into_iter().filter(|file| file.ends_with("mod.rs")).collect();
    assert!(strays.is_empty(), "mod.rs instead of the module's name: {strays:?}");
}

#[test]
fn an_ignored_test_says_why() {
    let files = ["src", "tests", "benches"].map(|folder| rust_files(&root().join(folder))).concat();
    let mut breaches = Vec::new();
    for file in files {
        for (number, line) in read(&file).lines().enumerate() {
            // Written in two parts, so that this line does not find itself.
            if line.trim() == concat!("#[", "ignore]") {
                breaches.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(breaches.is_empty(), "ignored without a reason:\n{}", breaches.join("\n"));
}
