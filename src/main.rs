//! The program: arguments in, exit code out.

use std::io::Write as _;
use std::process::ExitCode;

use scorefront::app::{self, App};
use scorefront::control::config::{self, Config, Invocation};
use scorefront::ops::logging::Logging;
use scorefront::ops::signal::Signals;
use scorefront::quickstart;
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let invocation = match config::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(invocation) => invocation,
        Err(stop) => {
            stop.print();
            return ExitCode::from(stop.exit_code());
        }
    };
    match start(invocation) {
        Ok(code) => code,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "scorefront: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(invocation: Invocation) -> anyhow::Result<ExitCode> {
    // Before anything else asks for it: the Kubernetes client would choose by itself.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match invocation {
            Invocation::Check(config) => {
                let (table, is_clean) = app::check(&config).await?;
                std::io::stdout().write_all(table.as_bytes())?;
                Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Invocation::Serve(config) => serve(config, |app| app).await,
            Invocation::Quickstart(config) => {
                let samples = quickstart::start().await?;
                let listen = config.listen.iter().copied().map(quickstart::free).collect();
                let config = Config { listen, admin: quickstart::free(config.admin), ..config };
                serve(config, |app| {
                    let guide = quickstart::guide(&app.addresses(), &samples.key);
                    // Without a terminal there is nobody to guide.
                    let _ = std::io::stdout().write_all(guide.as_bytes());
                    app.with_manifests(samples.manifests)
                })
                .await
            }
        }
    })
}

async fn serve(config: Config, prepare: impl FnOnce(App) -> App) -> anyhow::Result<ExitCode> {
    let logging = Logging::start(config.log_format, &config.log_level)?;
    let mut signals = Signals::listen()?;
    let app = prepare(App::bind(config)?);
    let (sender, requests) = mpsc::channel(8);
    tokio::spawn(async move { while sender.send(signals.next().await).await.is_ok() {} });
    let end = app.run(logging.levels(), requests).await;
    logging.flush(app::FLUSH);
    end.map(|()| ExitCode::SUCCESS)
}
