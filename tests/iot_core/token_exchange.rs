//! Credentials after the token exchange service or the IPC daemon of Greengrass Lite was started again.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::support::aws::token_exchange::TokenExchange;
use crate::support::nucleus::{Nucleus, in_the_component_unit};
use crate::support::ports::free_port;

const NEW_PORT: &str = "The token exchange service has a new port";
const VALIDITY: Duration = Duration::from_secs(2);

/// A nucleus, its token exchange service, IoT Core, and a broker behind it.
struct Greengrass {
    nucleus: Nucleus,
    exchange: TokenExchange,
    world: World,
    observer: Observer,
}

impl Greengrass {
    fn new() -> Self {
        let (nucleus, exchange) = (Nucleus::start(json!({})), TokenExchange::start(VALIDITY));
        exchange.accept(nucleus.token());
        nucleus.set_token_exchange_port(exchange.server.port);
        let world = World::new(Door::Signed(exchange.keys()));
        Self {
            nucleus,
            exchange,
            observer: world.observer(),
            world,
        }
    }

    fn command(&self) -> Command {
        let endpoint = format!("iot_endpoint={}", self.world.gateway.endpoint());
        let mut command = self.world.command("run", &[&endpoint]);
        self.nucleus.environment(&mut command);
        command.envs(self.exchange.environment());
        command
    }

    /// Waits until the component's credentials are worth nothing any more, and makes it sign in again.
    fn sign_in_again(&self, round: usize) {
        let end = self.exchange.keys().last_end().expect("a key was given");
        std::thread::sleep(end.duration_since(SystemTime::now()).unwrap_or_default());
        self.world.gateway.kick();
        self.observer.wait_for_status("online", round);
    }

    /// Stops the component and returns its log, in which there is no secret.
    fn stop(self, daemon: Daemon) -> String {
        let log = daemon.stop();
        assert_no_secret_in(&log, &self.exchange.keys().all(), &self.world.gateway);
        assert!(!log.contains(&self.nucleus.token()), "{log}");
        log
    }
}

#[test]
fn credentials_come_from_a_token_exchange_service_that_moved_to_another_port() {
    let mut greengrass = Greengrass::new();
    let first_token = greengrass.nucleus.token();
    let daemon = Daemon::start(greengrass.command());
    greengrass.observer.wait_for_status("started", 1);
    for round in 1..=2 {
        greengrass.exchange.restart();
        let port = greengrass.exchange.server.port;
        greengrass.nucleus.set_token_exchange_port(port);
        greengrass.sign_in_again(round);
        daemon.wait_for_line(&format!("{NEW_PORT} port={port}"));
    }
    let log = greengrass.stop(daemon);
    assert_eq!(log.matches(NEW_PORT).count(), 2, "{log}");
    assert!(!log.contains(&first_token), "{log}");
}

#[test]
fn a_wrong_port_at_the_start_is_corrected_by_the_nucleus() {
    let greengrass = Greengrass::new();
    // As the classic nucleus has it.
    let ports = json!({"port": 0, "activePort": greengrass.exchange.server.port});
    greengrass
        .nucleus
        .configure("aws.greengrass.TokenExchangeService", ports);
    let mut command = greengrass.command();
    let url = format!("http://localhost:{}/2016-11-01/credentialprovider/", free_port());
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    let daemon = Daemon::start(command);
    greengrass.observer.wait_for_status("started", 1);
    let log = greengrass.stop(daemon);
    assert!(!log.contains("AWS credentials could not be fetched"), "{log}");
}

#[test]
fn a_token_that_the_nucleus_forgot_is_replaced() {
    let greengrass = Greengrass::new();
    let Some(command) = in_the_component_unit(&greengrass.command()) else {
        eprintln!("not tried: file systems may not be mounted here");
        return;
    };
    let first_token = greengrass.nucleus.token();
    let daemon = Daemon::start(command);
    greengrass.observer.wait_for_status("started", 1);
    greengrass.nucleus.forget_token();
    greengrass.exchange.accept(greengrass.nucleus.token());
    greengrass.sign_in_again(1);
    let log = greengrass.stop(daemon);
    assert!(log.contains("has given the component a new token"), "{log}");
    assert!(!log.contains(&first_token), "{log}");
}
