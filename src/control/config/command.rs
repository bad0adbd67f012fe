//! The command line and the reference documentation, both made of the table of settings.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command};

use super::settings::{Group, SETTINGS, Setting};
use super::{Config, quickstart};

pub(super) const SERVE: &str = "serve";
pub(super) const CHECK: &str = "check";
pub(super) const QUICKSTART: &str = "quickstart";
pub(super) const CONFIG: &str = "config";
pub(super) const CONFIG_VARIABLE: &str = "SCOREFRONT_CONFIG";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("SCOREFRONT_COMMIT"), ")");

const ABOUT: &str = "Routes scoring requests to the replicas of models on Kubernetes.

New here? `scorefront quickstart` runs everything on this machine and prints requests to try.";

const SERVE_ABOUT: &str = "Runs the router.

It finds models by their Services, EndpointSlices and Secrets: in the cluster it runs in, in the one \
that kubectl talks to, or in a directory of YAML files.

  scorefront serve
  scorefront serve --source manifests:./models --listen 127.0.0.1:8080
  scorefront serve --config /etc/scorefront/router.yaml";

const CHECK_ABOUT: &str = "Validates the configuration and the objects, prints what would be served, and ends.

Takes the arguments of serve. Ends with 0 if everything is fine, else with one line for each problem.

  scorefront check --source manifests:./models";

const QUICKSTART_ABOUT: &str = "Runs sample replicas with the router in front, on this machine and without a cluster.

Prints ready-to-paste requests. Ctrl-C ends it.";

const PRECEDENCE: &str = "Every setting is also an environment variable (--max-attempts is SCOREFRONT_MAX_ATTEMPTS) \
and a key of the configuration file (max-attempts: 2). A flag beats the environment, the environment beats the file.";

pub(super) fn command() -> Command {
    Command::new("scorefront")
        .version(VERSION)
        .about("Routes scoring requests to the replicas of models on Kubernetes")
        .long_about(ABOUT)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(
            Command::new(SERVE).about("Runs the router").long_about(SERVE_ABOUT),
            &Config::default(),
            |_| true,
        ))
        .subcommand(with_settings(
            Command::new(CHECK).about("Validates configuration and objects, and ends").long_about(CHECK_ABOUT),
            &Config::default(),
            |_| true,
        ))
        .subcommand(with_settings(
            Command::new(QUICKSTART).about("Runs a complete example on this machine").long_about(QUICKSTART_ABOUT),
            &quickstart(),
            |setting| setting.group != Group::Discovery,
        ))
}

fn with_settings(command: Command, start: &Config, takes: fn(&Setting) -> bool) -> Command {
    let file = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .help(format!("YAML file with settings [env: {CONFIG_VARIABLE}]"))
        .help_heading(Group::Router.title());
    let settings = SETTINGS.iter().filter(|setting| takes(setting)).map(|setting| argument(setting, start));
    command.after_long_help(PRECEDENCE).arg(file).args(settings)
}

fn argument(setting: &'static Setting, start: &Config) -> Arg {
    let action = if setting.is_list() { ArgAction::Append } else { ArgAction::Set };
    let repeat = if setting.is_list() { " May be repeated." } else { "" };
    let facts = format!("[allowed: {}]\n[default: {}]", setting.allowed(), setting.text_of(start));
    let short: StyledStr = setting.meaning.trim_end_matches('.').to_owned().into();
    Arg::new(setting.key)
        .long(setting.key)
        .value_name(setting.form())
        .action(action)
        .help(short)
        .long_help(format!("{}{repeat}\n{facts}\n[env: {}]", setting.meaning, setting.variable()))
        .help_heading(setting.group.title())
}

/// The tables of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = String::new();
    for group in Group::ALL {
        let _ = writeln!(page, "### {}\n", group.title());
        page.push_str("| setting | default | allowed | meaning |\n| --- | --- | --- | --- |\n");
        for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
            let repeat = if setting.is_list() { " May be repeated." } else { "" };
            let (default, allowed) = (setting.default_text(), setting.allowed());
            let _ = writeln!(page, "| `{}` | {default} | {allowed} | {}{repeat} |", setting.key, setting.meaning);
        }
        page.push('\n');
    }
    page
}
