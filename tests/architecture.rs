//! The law of the source tree, read from the sources: who may import whom, and how files look.
//!
//! A path is found wherever it stands, in a `use` or in an expression; comments, strings and test modules do not
//! count. A file that breaks a law is named with its line, and the law says why it is one.

use std::fs;
use std::path::{Path, PathBuf};

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

/// Where a status is chosen; everything else passes on what it got.
const STATUS_CHOOSERS: &[&str] = &["core/outcome.rs", "data/respond.rs", "ops/admin.rs", "ops/admin/"];

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
fn only_main_imports_the_composition_root_and_nothing_shipped_imports_testing() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_in("testing")) {
        for (line, path) in source.paths() {
            let app = is_within(&path, "crate::app") && !source.is_in("app");
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

// === The sources ===

/// One file that is built into the product: not a test.
struct Source {
    /// Below `src/`.
    name: String,
    text: String,
}

impl Source {
    fn is_in(&self, module: &str) -> bool {
        self.name.strip_prefix(module).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }

    /// What stands before the test module: tests are at the end of a file.
    fn shipped(&self) -> &str {
        let is_test_module = |start: usize| {
            let mut below = self.text[start..].lines().skip(1).skip_while(|line| line.starts_with("#["));
            below.next().is_some_and(|line| line.starts_with("mod ") || line.starts_with("pub mod "))
        };
        let tests = self.text.match_indices("\n#[cfg(test)]").map(|(at, _)| at + 1).find(|&at| is_test_module(at));
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    /// Every path with its line, from the crate's root where it starts with `super` or `self`.
    fn paths(&self) -> Vec<(usize, String)> {
        let module: Vec<_> = self.name.trim_end_matches(".rs").split('/').filter(|part| *part != "lib").collect();
        let found = paths_in(&without_comments_and_strings(self.shipped()));
        found.into_iter().map(|(line, path)| (line, absolute(&module, &path))).collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let is_test = |name: &str| name.ends_with("tests.rs") || name.ends_with("loom.rs") || name.contains("tests/");
    let files = rust_files(&folder).into_iter().map(|file| {
        let name = file.strip_prefix(&folder).expect("a file of the folder").to_string_lossy().into_owned();
        Source { name, text: read(&file) }
    });
    let sources: Vec<_> = files.filter(|source| !is_test(&source.name)).collect();
    assert!(sources.len() > 20, "only {} sources found in {}", sources.len(), folder.display());
    sources
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

// === Paths ===

fn is_within(path: &str, forbidden: &str) -> bool {
    path.strip_prefix(forbidden).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `super::x` and `self::x` as seen from the crate's root.
fn absolute(module: &[&str], path: &str) -> String {
    let mut here = module.to_vec();
    let mut rest = path;
    while let Some(after) = rest.strip_prefix("super::") {
        here.pop();
        rest = after;
    }
    let is_relative = rest.len() != path.len() || rest.starts_with("self::");
    let rest = rest.trim_start_matches("self::");
    if !is_relative {
        return path.to_owned();
    }
    here.insert(0, "crate");
    here.push(rest);
    here.join("::")
}

/// The text with everything blanked that is no code; lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|tail| tail.len() - tail.trim_start_matches('#').len());
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw.filter(|&hashes| rest[1 + hashes..].starts_with('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            rest[2 + hashes..].find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len())
        } else if first == '"' {
            string_length(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            rest.find("'\"'").map_or(1, |at| at + 3)
        } else {
            0
        };
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            out.push(' ');
            rest = &rest[skipped..];
        }
    }
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Every `a::b::c`, and every leaf of `a::{b, c::{d, e}}`, with its line.
fn paths_in(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Each open brace that belongs to a path adds its prefix; any other brace adds `None`.
    let mut groups: Vec<Option<String>> = Vec::new();
    let mut current = String::new();
    let mut line = 1;
    let mut chars = code.chars().peekable();
    let mut finish = |current: &mut String, groups: &[Option<String>], line: usize| {
        let path = std::mem::take(current);
        let prefix = groups.last().and_then(Option::as_deref).unwrap_or_default();
        let is_path = !path.is_empty() && (path.contains("::") || !prefix.is_empty());
        if is_path {
            found.push((line, format!("{prefix}{path}")));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_alphanumeric() || c == '_' => current.push(c),
            ':' if chars.peek() == Some(&':') => {
                chars.next();
                current.push_str("::");
            }
            '{' => {
                let prefix = groups.last().and_then(Option::as_deref).unwrap_or_default();
                groups.push(current.ends_with("::").then(|| format!("{prefix}{current}")));
                current.clear();
            }
            _ => {
                finish(&mut current, &groups, line);
                if c == '}' {
                    groups.pop();
                }
                line += usize::from(c == '\n');
            }
        }
    }
    finish(&mut current, &groups, line);
    found
}

// === The law is read right ===

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

#[test]
fn a_path_is_found_in_groups_expressions_and_relative_imports() {
    let text = "//! tokio::spawn in a comment\n\
                use crate::{core::state, data::{pool, worker::Worker}};\n\
                use super::super::ops::ready;\n\
                fn f() { let text = \"kube::Client\"; hyper::body(); }\n\
                #[cfg(test)]\nmod tests { use crate::testing::replica; }\n";
    let paths = source("control/index.rs", text).paths();
    let words: Vec<_> = paths.iter().map(|(line, path)| format!("{line} {path}")).collect();
    assert_eq!(
        words,
        [
            "2 crate::core::state",
            "2 crate::data::pool",
            "2 crate::data::worker::Worker",
            "3 crate::ops::ready",
            "4 hyper::body"
        ]
    );
}

#[test]
fn a_prefix_is_a_whole_word() {
    assert!(is_within("tokio::spawn", "tokio"));
    assert!(!is_within("tokio_rustls::TlsAcceptor", "tokio"));
    assert!(is_within("crate::data", "crate::data"));
    assert!(!is_within("crate::datagram", "crate::data"));
}

#[test]
fn strings_and_comments_hide_nothing_behind_them() {
    let code =
        without_comments_and_strings("let a = \"\\\"//\"; b::c(); // d::e\n/* f::g */ h::i(r#\"\"j::k\"#, '\"');");
    let paths: Vec<_> = paths_in(&code).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["b::c", "h::i"]);
}

#[test]
fn a_test_helper_in_the_middle_of_a_file_does_not_end_it() {
    let text =
        "//! A\n#[cfg(test)]\nfn helper() {}\nfn shipped() {}\n#[cfg(test)]\n#[path = \"a/tests.rs\"]\nmod tests;\n";
    assert!(source("core/a.rs", text).shipped().ends_with("fn shipped() {}\n"));
}
