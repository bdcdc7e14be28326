//! `config get KEY`: one effective value, for scripts.

use clap::{Args, Subcommand};

use super::{ConfigArgs, Exit, complain, say};
use crate::config::{Sources, get, load};

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ei-greengrass config get ei_ggc_user_groups --config my.json")]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
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
    let Action::Get { key, config } = &command.action;
    let loaded = match config.load() {
        Ok(Some(loaded)) => Ok(loaded),
        Ok(None) => load(&Sources::default()),
        Err(e) => Err(e),
    };
    match loaded {
        Ok(loaded) => match get(&loaded, key) {
            Some(value) => {
                say(&value);
                Exit::Orderly
            }
            None => {
                complain(&format!(
                    "{key:?} is no configuration key; `ei-greengrass check` lists all of them"
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
