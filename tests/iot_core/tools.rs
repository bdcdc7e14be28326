//! `watch` and `send` over IoT Core, with the credentials of the environment.

use super::*;

impl World {
    /// A tool with a key in the environment.
    fn tool(&self, words: &[&str], key: &Key) -> Command {
        let mut command = self.site.command(words[0]);
        command
            .args(&words[1..])
            .args(["--set", &format!("iot_endpoint={}", self.gateway.endpoint())])
            .env("AWS_REGION", REGION)
            .env("AWS_CONFIG_FILE", "/nonexistent")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env("SSL_CERT_FILE", self.certificates.path("ca.pem"));
        with_key(command, key)
    }
}

#[test]
fn a_command_is_sent_and_inferences_are_watched_with_signed_connections() {
    let key = key(None);
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let observer = world.observer();
    let daemon = world.run_with_key(&key, &[&format!("iot_endpoint={}", world.gateway.endpoint())]);
    observer.wait_for_status("started", 1);

    let watch = Daemon::start(world.tool(&["watch"], &key));
    let line = watch.wait_for_line("inference ");
    assert!(line.contains("ball 0."), "{line}");

    let output = world.tool(&["send", "get_model_info"], &key).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("builtin:ball"), "{output:?}");
    watch.wait_for_line("answer ");
    // The daemon kept its connection: a tool that took its client id would have thrown it out.
    assert_eq!(world.gateway.accepted().len(), 3);

    let wrong = Key {
        secret: "of somebody else".into(),
        ..key
    };
    let output = world.tool(&["send", "get_model_info"], &wrong).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no connection to"), "{text}");
    daemon.stop();
}
