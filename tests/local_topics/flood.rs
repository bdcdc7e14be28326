//! A component on the same device that sends commands without end.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Place;
use crate::daemon::floods::{check_log, hostile};
use crate::support::leftovers::wait_until;

const ROUNDS: usize = 500;

#[test]
fn a_flood_of_local_commands_writes_few_lines_and_later_commands_are_answered() {
    let place = Place::new();
    let daemon = place.run_live(&[]);
    let commands = place.wait_for_local_inference();
    for number in 0..ROUNDS {
        let name = hostile(number);
        place.nucleus.publish(&commands, &json!({"cmd": name, "value": name}));
        place.nucleus.publish(&commands, &json!(name));
        place.nucleus.publish(&commands, &json!([[[[number]]]]));
        place.nucleus.publish_bytes(&commands, name.as_bytes());
        place.nucleus.publish_bytes(&commands, &[0xff; 100]);
    }
    // Commands that come too fast are refused: this one is repeated until it is executed, slowly enough to be no flood.
    let mut repeated = Instant::now();
    wait_until("a command after the flood", || {
        if repeated.elapsed() > Duration::from_secs(1) {
            repeated = Instant::now();
            place.nucleus.publish(&commands, &json!({"cmd": "get_model_info"}));
        }
        let answers = place.nucleus.local_messages("/command/output");
        answers.iter().any(|answer| answer["result"]["model_info"].is_object())
    });
    let lines = check_log(&daemon.stop(), false);
    assert!(lines < 400, "{lines} lines");
}
