//! What each layer says about each setting, before anything is checked.

use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;

use super::settings::{SETTINGS, Setting};
use super::{Config, command, file};
use crate::control::nearest::nearest;

/// Values with where they were given, by setting; the strongest layer only.
#[derive(Debug, Default)]
pub(super) struct Layers {
    given: Vec<Given>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Given {
    setting: &'static Setting,
    values: Vec<String>,
    /// `--key`, `environment SCOREFRONT_KEY` or `file:line: key`.
    origin: String,
}

impl Layers {
    /// From the flags, then the environment, then the file.
    ///
    /// # Errors
    /// Where the file or a variable cannot be read; unknown keys in it are told by [`Layers::apply`] with all other problems.
    pub(super) fn gather(
        arguments: &ArgMatches,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let variable = |name: &str| environment(name).map(|value| text(name, value)).transpose();
        let mut layers = Self::default();
        for setting in SETTINGS {
            if let Some(values) = flag(arguments, setting.key) {
                layers.add(setting, values, format!("--{}", setting.key));
            }
        }
        for setting in SETTINGS {
            if let Some(value) = variable(&setting.variable())? {
                let values = if setting.is_list() { split(&value) } else { vec![value] };
                layers.add(setting, values, format!("environment {}", setting.variable()));
            }
        }
        let path = flag(arguments, command::CONFIG).and_then(|mut values| values.pop());
        let path = path.map_or_else(|| variable(command::CONFIG_VARIABLE), |path| Ok(Some(path)))?;
        if let Some(path) = path {
            layers.add_file(Path::new(&path))?;
        }
        Ok(layers)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), String> {
        for entry in file::read(path)? {
            let origin = format!("{}:{}: {}", path.display(), entry.line, entry.key);
            match SETTINGS.iter().find(|setting| setting.key == entry.key) {
                Some(setting) => self.add(setting, entry.values, origin),
                None => self.problems.push(unknown(&entry.key, &origin)),
            }
        }
        Ok(())
    }

    /// A weaker layer changes nothing.
    fn add(&mut self, setting: &'static Setting, values: Vec<String>, origin: String) {
        if !self.given.iter().any(|given| given.setting.key == setting.key) {
            self.given.push(Given { setting, values, origin });
        }
    }

    /// Puts everything that was given into `config`.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub(super) fn apply(mut self, mut config: Config) -> Result<Config, Vec<String>> {
        for Given { setting, values, origin } in self.given {
            if let Err(problem) = setting.put(&mut config, &values) {
                self.problems.push(format!("{origin}: {problem}"));
            }
        }
        if self.problems.is_empty() { Ok(config) } else { Err(self.problems) }
    }
}

fn flag(arguments: &ArgMatches, key: &str) -> Option<Vec<String>> {
    // A command that does not have the flag has no value for it either.
    let values = arguments.try_get_many::<String>(key).ok()??;
    Some(values.cloned().collect())
}

fn text(variable: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("environment {variable}: {value:?} is no UTF-8"))
}

/// A list in one environment variable has commas between its items.
fn split(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(ToOwned::to_owned).collect()
}

fn unknown(key: &str, origin: &str) -> String {
    match nearest(key, SETTINGS.iter().map(|setting| setting.key)) {
        Some(right) => format!("{origin}: there is no such setting; did you mean {right}?"),
        None => format!("{origin}: there is no such setting; scorefront serve --help lists them"),
    }
}
