//! The front-ends under test and their configurations: one worker thread each, keep-alive to clients and replicas,
//! a request id added. "+log" is a JSON access log with id, status, method, path, durations, bytes, replica.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::process::{Process, find_program, free_address};

/// A running front-end.
pub struct Contender {
    /// Its name in reports.
    pub name: &'static str,
    /// Where it takes requests.
    pub address: SocketAddr,
    /// Where its operators look; Scorefront only.
    pub admin: Option<SocketAddr>,
    /// The process.
    pub process: Process,
}

/// Starts front-ends for one scenario: on one core, with their files in one folder.
pub struct Starter<'a> {
    /// Where configurations, logs and outputs go.
    pub dir: &'a Path,
    /// The core of every front-end; any for `None`.
    pub core: Option<usize>,
    /// The Scorefront binary.
    pub scorefront: &'a Path,
    /// The Envoy binary.
    pub envoy: &'a Path,
}

impl Starter<'_> {
    /// Scorefront with one worker, JSON access log in a file, metrics.
    pub fn scorefront(&self, manifests: &str) -> anyhow::Result<Contender> {
        anyhow::ensure!(
            self.scorefront.is_file(),
            "{} is missing: cargo build --release, or name another with --scorefront",
            self.scorefront.display()
        );
        let (address, admin) = (free_address()?, free_address()?);
        let source = self.dir.join("manifests");
        fs::create_dir_all(&source)?;
        self.write("manifests/all.yaml", manifests)?;
        let arguments = [
            "serve".to_owned(),
            format!("--listen={address}"),
            format!("--admin={admin}"),
            format!("--source=manifests:{}", source.display()),
            "--workers=1".to_owned(),
            "--drain-grace-ms=0".to_owned(),
            format!("--access-log={}", self.fresh_log("scorefront")?.display()),
        ];
        let mut process = Process::start("scorefront", self.core, self.scorefront, &arguments, self.dir)?;
        process.wait_until_ready(admin, "/readyz")?;
        Ok(Contender { name: "scorefront", address, admin: Some(admin), process })
    }

    /// HAProxy in HTTP mode; `connections_max` is `maxconn` of each server: 1 makes it a single perfect queue.
    pub fn haproxy(&self, replicas: &[SocketAddr], connections_max: Option<u32>) -> anyhow::Result<Contender> {
        let address = free_address()?;
        let limit = connections_max.map(|max| format!(" maxconn {max}")).unwrap_or_default();
        let mut configuration = format!(
            r#"global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 120s
    timeout server 60s
    timeout queue 60s
    timeout http-keep-alive 120s
frontend scoring
    bind {address}
    unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid
    unique-id-header X-Request-Id
    monitor-uri /ready
    default_backend replicas
backend replicas
    balance leastconn
"#
        );
        for (number, replica) in replicas.iter().enumerate() {
            configuration.push_str(&format!("    server replica{number} {replica}{limit}\n"));
        }
        let file = self.write("haproxy.cfg", &configuration)?;
        let arguments = ["-db", "-f", &file.display().to_string()].map(str::to_owned);
        let program = find_program("haproxy", "haproxy")?;
        let mut process = Process::start("haproxy", self.core, &program, &arguments, self.dir)?;
        process.wait_until_ready(address, "/ready")?;
        Ok(Contender { name: "haproxy", address, admin: None, process })
    }

    /// nginx as a proxy, with or without access log.
    pub fn nginx(&self, name: &'static str, replica: SocketAddr, log: bool) -> anyhow::Result<Contender> {
        let address = free_address()?;
        let access_log = if log {
            format!(
                r#"log_format json escape=json '{{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr",'
        '"method":"$request_method","path":"$uri","protocol":"$server_protocol","agent":"$http_user_agent",'
        '"status":$status,"model_status":"$upstream_status","bytes_in":$request_length,"bytes_out":$body_bytes_sent,'
        '"duration":$request_time,"upstream_duration":"$upstream_response_time","replica":"$upstream_addr"}}';
    access_log {} json;"#,
                self.fresh_log(name)?.display()
            )
        } else {
            "access_log off;".to_owned()
        };
        let http = format!(
            r#"    {access_log}
    upstream replicas {{ server {replica}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen {address};
        location = /ready {{ return 200; }}
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}"#
        );
        let process = self.start_nginx(name, self.core, &http, address)?;
        Ok(Contender { name, address, admin: None, process })
    }

    /// The replica for cost figures: nginx that answers 36 bytes of JSON at once, on a core of its own choice.
    pub fn instant_replica(&self, core: Option<usize>) -> anyhow::Result<(SocketAddr, Process)> {
        let address = free_address()?;
        let http = format!(
            r#"    access_log off;
    default_type application/json;
    server {{
        listen {address} backlog=4096;
        location = /ready {{ return 200; }}
        location / {{ return 200 '{{"predictions":[0],"model":"iris:1"}}'; }}
    }}"#
        );
        let process = self.start_nginx("replica", core, &http, address)?;
        Ok((address, process))
    }

    fn start_nginx(
        &self,
        name: &'static str,
        core: Option<usize>,
        http: &str,
        address: SocketAddr,
    ) -> anyhow::Result<Process> {
        let dir = self.dir.display();
        let configuration = format!(
            r#"daemon off;
master_process off;
pid {dir}/{name}.pid;
error_log stderr error;
events {{ worker_connections 4096; multi_accept on; }}
http {{
    keepalive_requests 1000000000;
    keepalive_timeout 120s;
    client_body_temp_path {dir}/{name}-body;
    proxy_temp_path {dir}/{name}-proxy;
    fastcgi_temp_path {dir}/{name}-fastcgi;
    uwsgi_temp_path {dir}/{name}-uwsgi;
    scgi_temp_path {dir}/{name}-scgi;
{http}
}}
"#
        );
        let file = self.write(&format!("{name}.conf"), &configuration)?;
        let arguments = ["-e", "stderr", "-c", &file.display().to_string()].map(str::to_owned);
        let program = find_program("nginx", "nginx")?;
        let mut process = Process::start(name, core, &program, &arguments, self.dir)?;
        process.wait_until_ready(address, "/ready")?;
        Ok(process)
    }

    /// Envoy with an access log.
    pub fn envoy(&self, replica: SocketAddr) -> anyhow::Result<Contender> {
        anyhow::ensure!(
            self.envoy.is_file(),
            "{} is missing: bash .ci/run loadtests installs it, or name another with --envoy",
            self.envoy.display()
        );
        let address = free_address()?;
        let log = self.fresh_log("envoy+log")?;
        let configuration = include_str!("envoy.yaml")
            .replace("LISTEN_PORT", &address.port().to_string())
            .replace("REPLICA_PORT", &replica.port().to_string())
            .replace("LOG_FILE", &log.display().to_string());
        let file = self.write("envoy.yaml", &configuration)?;
        let arguments =
            ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", &file.display().to_string()]
                .map(str::to_owned);
        let mut process = Process::start("envoy+log", self.core, self.envoy, &arguments, self.dir)?;
        process.wait_until_ready(address, "/ready")?;
        Ok(Contender { name: "envoy+log", address, admin: None, process })
    }

    /// The access log of a front-end, without the lines of an earlier run.
    fn fresh_log(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.write(&log_name(name), "")
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.dir.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }
}

/// The file name of a front-end's access log.
pub fn log_name(front_end: &str) -> String {
    format!("{front_end}.log")
}
