//! The sources as the law reads them: files that are built into the product, and the paths in their code.

use std::fs;
use std::path::{Path, PathBuf};

/// One file that is built into the product: not a test.
pub(crate) struct Source {
    /// Below `src/`.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_in(&self, module: &str) -> bool {
        self.name.strip_prefix(module).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }

    /// What stands before the inline test module: tests are at the end of a file.
    pub(crate) fn shipped(&self) -> &str {
        let end = test_modules(&self.text).into_iter().find(|module| module.declaration.contains('{'));
        &self.text[..end.map_or(self.text.len(), |module| module.at)]
    }

    /// The files of the test modules that it declares, without `.rs`.
    fn test_files(&self) -> Vec<String> {
        let folder = self.name.trim_end_matches(".rs");
        let beside = folder.rsplit_once('/').map_or(String::new(), |(parent, _)| format!("{parent}/"));
        let modules = test_modules(&self.text).into_iter().filter(|module| !module.declaration.contains('{'));
        let file = modules.map(|module| match module.path {
            Some(path) => format!("{beside}{}", path.trim_end_matches(".rs")),
            None => format!("{folder}/{}", module.declaration.trim_start_matches("pub ")[4..].trim_end_matches(';')),
        });
        file.collect()
    }

    /// Every path with its line, from the crate's root where it starts with `super` or `self`.
    pub(crate) fn paths(&self) -> Vec<(usize, String)> {
        let module: Vec<_> = self.name.trim_end_matches(".rs").split('/').filter(|part| *part != "lib").collect();
        let found = paths_in(&without_comments_and_strings(self.shipped()));
        found.into_iter().map(|(line, path)| (line, absolute(&module, &path))).collect()
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(crate) fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let files = rust_files(&folder).into_iter().map(|file| {
        let name = file.strip_prefix(&folder).expect("a file of the folder").to_string_lossy().into_owned();
        Source { name, text: read(&file) }
    });
    let mut sources: Vec<_> = files.collect();
    let tests: Vec<_> = sources.iter().flat_map(Source::test_files).collect();
    sources.retain(|source| !tests.iter().any(|test| source.is_in(test)));
    assert!(sources.len() > 20, "only {} sources found in {}", sources.len(), folder.display());
    sources
}

/// A module that exists for tests only.
struct TestModule<'a> {
    at: usize,
    path: Option<&'a str>,
    /// `mod name;` or `mod name {`.
    declaration: &'a str,
}

fn test_modules(text: &str) -> Vec<TestModule<'_>> {
    let gates = text.match_indices("\n#[cfg(").map(|(at, _)| at + 1);
    let only_for_tests =
        gates.filter(|&at| text[at..].starts_with("#[cfg(test)]") || text[at..].starts_with("#[cfg(all(test"));
    let modules = only_for_tests.filter_map(|at| {
        let mut below = text[at..].lines().skip(1).skip_while(|line| line.starts_with("#[cfg("));
        let first = below.next()?;
        let path = first.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
        let declaration = if path.is_some() { below.next()? } else { first };
        let is_module = declaration.starts_with("mod ") || declaration.starts_with("pub mod ");
        is_module.then_some(TestModule { at, path, declaration })
    });
    modules.collect()
}

pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
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

pub(crate) fn is_within(path: &str, forbidden: &str) -> bool {
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
    let text = "//! A\n#[cfg(test)]\nfn helper() {}\nfn shipped() {}\n#[cfg(all(test, not(loom)))]\nmod tests {\n}\n";
    assert!(source("core/a.rs", text).shipped().ends_with("fn shipped() {}\n"));
}

#[test]
fn the_files_of_test_modules_are_known_by_their_declarations() {
    let text = "//! A\n#[cfg(test)]\nmod inner;\nmod b;\n#[cfg(test)]\n#[path = \"a/tests.rs\"]\nmod tests;\n";
    let source = source("core/a.rs", text);
    assert_eq!(source.test_files(), ["core/a/inner", "core/a/tests"]);
    assert_eq!(source.shipped(), text);
}
