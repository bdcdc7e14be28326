//! What the connection to Edge Impulse Studio costs beside the running inference: monitoring, with one record a second, and
//! data collection that nobody asks for a sample.

use super::live::{self, ROUNDS, Round};
use super::median;
use super::reach::Reach;
use super::scene::Scene;
use super::support::daemon::{Daemon, Site};
use super::support::mosquitto::Mosquitto;
use super::support::observer::Observer;
use super::support::remote_management::{OnHello, RemoteManagement};
use super::support::studio::{self as stand_in, good_secret};

const SETS: [&str; 2] = ["monitor=yes", "collect=yes"];

/// Prints the table.
pub fn print(broker: &Mosquitto, reach: &mut Reach) {
    println!(
        "\nLive, 30 frames a second, 640x480 into 320x320, monitored by Edge Impulse Studio and collecting for it\n"
    );
    println!("| what | CPU s a second | without | more | PSS, MiB | without |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| (measure(false, broker), measure(true, broker)))
        .collect();
    let of = |figure: &dyn Fn(&(Round, Round)) -> f64| median(rounds.iter().map(figure).collect());
    let more = of(&|(without, with)| with.ours.load() - without.ours.load());
    println!(
        "| monitoring and collection | {:.3} | {:.3} | {more:.3} | {:.1} | {:.1} |",
        of(&|(_, with)| with.ours.load()),
        of(&|(without, _)| without.ours.load()),
        of(&|(_, with)| with.pss_mib),
        of(&|(without, _)| without.pss_mib),
    );
    reach.at_most("monitoring and collection, more CPU s a second", more, 0.05);
}

fn measure(is_connected: bool, broker: &Mosquitto) -> Round {
    let site = Site::new();
    let observer = Observer::connect(broker.port, site.device());
    let (remote, secrets) = (
        RemoteManagement::start(OnHello::Accept),
        stand_in::secrets(&good_secret()),
    );
    let api = stand_in::studio(&stand_in::state(Vec::new()));
    let scene = Scene::USUAL;
    let mut command = site.command("run");
    command
        .args(["--mqtt", &broker.url()])
        .args(scene.arguments(&scene.source(true)))
        .args(live::METRICS);
    stand_in::surround(&mut command, &secrets.url(), &api.url());
    command
        .env("EI_REMOTE_MGMT_URL", remote.url())
        .env("EI_INGESTION_URL", api.url());
    if is_connected {
        command.args(SETS.iter().flat_map(|set| ["--set", set]));
    }
    let daemon = Daemon::start(command);
    observer.wait_for_status("started", 1);
    if is_connected {
        let (_, hello) = remote.hello(0);
        assert_eq!(hello["hello"]["mode"], "inference", "it is monitored");
        assert_ne!(hello["hello"]["sensors"], serde_json::json!([]), "it collects");
    }
    let round = live::look(&daemon, &observer);
    daemon.stop();
    round
}
