//! `demo`: runs the whole pipeline without AWS, a camera or a download.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, LogArgs, logging, run};
use crate::config::{Sources, load};
use crate::supervisor::Setup;
use crate::util::private_dir;
use crate::util::text::sentence;

/// A white ball that bounces on black, so that the correct detections are known.
const BALL: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ei-greengrass demo\n  ei-greengrass demo --mqtt mqtt://localhost:1883")]
pub struct DemoArgs {
    /// Publish to this broker instead of the screen.
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// Another built-in model, or an .eim file.
    #[arg(long, value_name = "MODEL", default_value = "builtin:ball")]
    model: String,
    /// Another source, as a gst-launch line.
    #[arg(long, value_name = "LINE", default_value = BALL)]
    gst: String,
    /// Set one key, as for `run`; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn main(args: &DemoArgs, log: &LogArgs) -> Exit {
    private_dir::deny_writing_by_others();
    logging::init(log.log_format, log.verbosity().unwrap_or_default());
    // The demo leaves no files behind, and cannot collide with a real device of the same name.
    let work_dir = std::env::temp_dir().join(format!("ei-greengrass-demo-{}", std::process::id()));
    let exit = match setup(args, work_dir.clone()) {
        Ok(setup) => {
            tracing::info!("Demo: a bouncing ball, the built-in model, one line per message; Ctrl-C ends it");
            run::run_daemon(setup, None)
        }
        Err(text) => {
            tracing::error!(error = %text, "The demo cannot start");
            Exit::Configuration
        }
    };
    let _ = std::fs::remove_dir_all(&work_dir);
    exit
}

fn setup(args: &DemoArgs, work_dir: PathBuf) -> Result<Setup, String> {
    let mut sets = vec![
        ("device_name".to_owned(), "demo".to_owned()),
        ("lock_filename".to_owned(), work_dir.join("lock").display().to_string()),
        ("work_dir".to_owned(), work_dir.display().to_string()),
        ("metrics_sleeptime_ms".to_owned(), "10000".to_owned()),
    ];
    for set in &args.set {
        sets.push(crate::config::parse_set(set).map_err(|e| sentence(&e))?);
    }
    let loaded = load(&Sources {
        sets,
        model: Some(args.model.clone()),
        mqtt: args.mqtt.clone(),
        gst: Some(args.gst.clone()),
        current_dir: work_dir.clone(),
        ..Sources::default()
    })
    .map_err(|e| sentence(&e))?;
    run::log_findings(&loaded);
    private_dir::create_trusted(&work_dir).map_err(|e| format!("{} cannot be created: {e}", work_dir.display()))?;
    if args.mqtt.is_some() {
        return Setup::new(loaded.config, false).map_err(|e| sentence(&e));
    }
    Setup::with_stdout(loaded.config).map_err(|e| sentence(&e))
}
