//! `config get KEY`: one effective value, for scripts.

use clap::{Args, Subcommand};

use super::{ConfigArgs, Exit, complain, say_data};
use crate::config::get;

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ei-greengrass config get ei_ggc_user_groups --config my.json")]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Print the effective value of one key: switches as yes or no, an empty line when there is none.
    #[command(after_help = "Example:\n  ei-greengrass config get install_kvssink")]
    Get {
        /// The key, as in the component configuration.
        key: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub(super) fn main(command: &ConfigCommand) -> Exit {
    let ConfigAction::Get { key, config } = &command.action;
    match config.load_or_default() {
        Ok(loaded) => match get(&loaded, key) {
            Some(value) => {
                say_data(&value);
                Exit::Orderly
            }
            None => {
                complain(&format!(
                    "{key:?} is not a configuration key; `ei-greengrass check` lists all of them"
                ));
                Exit::Configuration
            }
        },
        Err(e) => {
            complain(&e.to_string());
            Exit::Configuration
        }
    }
}
