//! The front-ends under test and their configurations: keep-alive to clients and replicas, a request id added, and the
//! same face to clients for all of one run. "+log" is a JSON access log with id, status, method, path, durations, bytes,
//! replica.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// What clients meet.
#[derive(Clone, Copy)]
pub struct Face<'a> {
    /// Certificate and key, where clients speak TLS.
    pub tls: Option<&'a Certificate>,
    /// Whether they speak HTTP/2, from the first byte on.
    pub http2: bool,
    /// Worker threads.
    pub workers: usize,
}

impl Face<'_> {
    /// HTTP/1.1 in plain text, one worker.
    pub const PLAIN: Self = Self { tls: None, http2: false, workers: 1 };
}

/// A self-signed certificate on P-256, made for the run.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    /// Both in one file, as HAProxy wants it.
    both: PathBuf,
}

impl Certificate {
    /// Makes one in this folder.
    pub fn make(dir: &Path) -> anyhow::Result<Self> {
        let made = Self { chain: dir.join("tls.crt"), key: dir.join("tls.key"), both: dir.join("tls.pem") };
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.chain)
            .output()
            .context("start openssl (Debian package openssl)")?;
        anyhow::ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        fs::write(&made.both, [fs::read(&made.chain)?, fs::read(&made.key)?].concat())?;
        Ok(made)
    }
}

/// Starts front-ends for one scenario: on one core, with their files in one folder.
#[derive(Clone, Copy)]
pub struct Starter<'a> {
    /// Where configurations, logs and outputs go.
    pub dir: &'a Path,
    /// The core of every front-end; any for `None`.
    pub core: Option<usize>,
    /// The Scorefront binary.
    pub scorefront: &'a Path,
    /// The Envoy binary.
    pub envoy: &'a Path,
    /// What clients meet.
    pub face: Face<'a>,
}

impl Starter<'_> {
    /// Scorefront with JSON access log in a file and metrics, under a name of its own, with more arguments if need be.
    pub fn scorefront(&self, name: &'static str, manifests: &str, more: &[&str]) -> anyhow::Result<Contender> {
        anyhow::ensure!(
            self.scorefront.is_file(),
            "{} is missing: cargo build --release, or name another with --scorefront",
            self.scorefront.display()
        );
        let (address, admin) = (free_address()?, free_address()?);
        let source = self.dir.join(format!("{name}-manifests"));
        fs::create_dir_all(&source)?;
        self.write(&format!("{name}-manifests/all.yaml"), manifests)?;
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--admin={admin}"),
            format!("--source=manifests:{}", source.display()),
            format!("--workers={}", self.face.workers),
            "--drain-grace-ms=0".to_owned(),
            // One client, and its address, stand for all.
            "--max-connections-per-address=0".to_owned(),
            format!("--access-log={}", self.fresh_log(name)?.display()),
        ];
        match self.face.tls {
            None => arguments.push(format!("--listen={address}")),
            Some(Certificate { chain, key, .. }) => arguments.extend([
                format!("--listen={}", free_address()?),
                format!("--listen-tls={address}"),
                format!("--tls-cert={}", chain.display()),
                format!("--tls-key={}", key.display()),
            ]),
        }
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        let mut process = Process::start(name, self.core, self.scorefront, &arguments, self.dir)?;
        process.wait_until_ready(admin, "/readyz")?;
        Ok(Contender { name, address, admin: Some(admin), process })
    }

    /// HAProxy in HTTP mode; `connections_max` is `maxconn` of each server: 1 makes it a single perfect queue.
    pub fn haproxy(&self, replicas: &[SocketAddr], connections_max: Option<u32>) -> anyhow::Result<Contender> {
        let (address, probe) = (free_address()?, free_address()?);
        let mut bind = String::new();
        if let Some(Certificate { both, .. }) = self.face.tls {
            bind.push_str(&format!(" ssl crt {} alpn http/1.1", both.display()));
        }
        if self.face.http2 {
            bind.push_str(" proto h2");
        }
        let workers = self.face.workers;
        let limit = connections_max.map(|max| format!(" maxconn {max}")).unwrap_or_default();
        let mut configuration = format!(
            r#"global
    nbthread {workers}
    maxconn 8000
    tune.h2.max-concurrent-streams 128
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
    bind {address}{bind}
    bind {probe}
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
        process.wait_until_ready(probe, "/ready")?;
        Ok(Contender { name: "haproxy", address, admin: None, process })
    }

    /// nginx as a proxy.
    pub fn nginx(&self, name: &'static str, replica: SocketAddr, way: Nginx) -> anyhow::Result<Contender> {
        let buffering = if way.buffers { "on" } else { "off" };
        let address = free_address()?;
        let access_log = if way.logs {
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
        let probe = free_address()?;
        let (mut listen, mut tls) = (String::new(), String::new());
        if let Some(Certificate { chain, key, .. }) = self.face.tls {
            listen.push_str(" ssl");
            tls = format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:SSL:10m;",
                chain.display(),
                key.display()
            );
        }
        if self.face.http2 {
            listen.push_str(" http2");
        }
        let http = format!(
            r#"    {access_log}
    upstream replicas {{ server {replica}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen {address}{listen} backlog=4096;
        listen {probe};
        {tls}
        client_max_body_size 100m;
        http2_max_concurrent_streams 128;
        location = /ready {{ return 200; }}
        location / {{
            proxy_buffering {buffering};
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}"#
        );
        let process = self.start_nginx(name, self.core, &http, probe)?;
        Ok(Contender { name, address, admin: None, process })
    }

    /// The replica for small requests: nginx that answers 36 bytes of JSON at once, on a core of its own choice, and
    /// keeps connections or, as the stock model server, closes each after its answer.
    pub fn instant_replica(&self, core: Option<usize>, keeps: bool) -> anyhow::Result<(SocketAddr, Process)> {
        let address = free_address()?;
        let timeout = if keeps { "120s" } else { "0" };
        let http = format!(
            r#"    access_log off;
    default_type application/json;
    server {{
        listen {address} backlog=4096;
        keepalive_timeout {timeout};
        location = /ready {{ return 200; }}
        location / {{ return 200 '{{"predictions":[0],"model":"iris:1"}}'; }}
    }}"#
        );
        let process = self.start_nginx("replica", core, &http, address)?;
        Ok((address, process))
    }

    /// The floor: bytes passed on by this program, without a look at them.
    pub fn floor(&self, replica: SocketAddr) -> anyhow::Result<Contender> {
        let address = free_address()?;
        let arguments = ["floor".to_owned(), format!("--listen={address}"), format!("--to={replica}")];
        let mut process = Process::start("l4-floor", self.core, &std::env::current_exe()?, &arguments, self.dir)?;
        process.wait_until_ready(address, "/ready")?;
        Ok(Contender { name: "l4-floor", address, admin: None, process })
    }

    /// A replica of this program, for answers that nginx does not give.
    pub fn origin(&self, core: Option<usize>, way: &str) -> anyhow::Result<(SocketAddr, Process)> {
        let address = free_address()?;
        let arguments = ["origin".to_owned(), format!("--listen={address}"), format!("--way={way}")];
        let mut process = Process::start("replica", core, &std::env::current_exe()?, &arguments, self.dir)?;
        process.wait_until_ready(address, "/ready")?;
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
        let processes = match self.face.workers {
            1 => "master_process off;".to_owned(),
            workers => format!("worker_processes {workers};"),
        };
        let configuration = format!(
            r#"daemon off;
{processes}
pid {dir}/{name}.pid;
error_log stderr error;
events {{ worker_connections 8000; multi_accept on; }}
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
        let (address, probe) = (free_address()?, free_address()?);
        let log = self.fresh_log("envoy+log")?;
        let configuration = include_str!("envoy.yaml")
            .replace("PROBE_PORT", &probe.port().to_string())
            .replace("LISTEN_PORT", &address.port().to_string())
            .replace("REPLICA_PORT", &replica.port().to_string())
            .replace("LOG_FILE", &log.display().to_string());
        let file = self.write("envoy.yaml", &configuration)?;
        let arguments = [
            "--concurrency",
            &self.face.workers.to_string(),
            "--disable-hot-restart",
            "-l",
            "error",
            "-c",
            &file.display().to_string(),
        ]
        .map(str::to_owned);
        let mut process = Process::start("envoy+log", self.core, self.envoy, &arguments, self.dir)?;
        process.wait_until_ready(probe, "/ready")?;
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

/// How nginx is set up.
#[derive(Clone, Copy)]
pub struct Nginx {
    /// Whether it writes an access log.
    pub logs: bool,
    /// Whether it gathers answers before it passes them on, its default.
    pub buffers: bool,
}

/// The file name of a front-end's access log.
pub fn log_name(front_end: &str) -> String {
    format!("{front_end}.log")
}
