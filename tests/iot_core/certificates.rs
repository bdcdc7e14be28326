//! Client certificates.

use super::*;

/// `iot_auth=x509` with this client's files, for `--set`.
fn x509(world: &World, client: &Certificates) -> Vec<String> {
    vec![
        "iot_auth=x509".into(),
        format!("iot_cert={}", client.text("client.pem")),
        format!("iot_key={}", client.text("client.key")),
        format!("iot_ca={}", world.certificates.text("ca.pem")),
    ]
}

fn run(world: &World, sets: &[String], endpoint: &str) -> Daemon {
    let endpoint = format!("iot_endpoint={endpoint}");
    let mut all: Vec<&str> = sets.iter().map(String::as_str).collect();
    all.push(&endpoint);
    let mut command = world.command("run", &all);
    // Only `iot_ca` leads to the authority here.
    command.env_remove("SSL_CERT_FILE");
    Daemon::start(command)
}

/// A world whose broker asks for certificates itself.
fn with_asking_broker() -> World {
    let mut world = World::new(Door::Certificate);
    let path = |name| world.certificates.text(name);
    let lines = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nlistener {} 127.0.0.1",
        path("ca.pem"),
        path("server.pem"),
        path("server.key"),
        support::ports::free_port(),
    );
    world.broker = Mosquitto::start_with(tempfile::tempdir().unwrap(), &lines);
    world
}

/// The plain listener of [`with_asking_broker`].
fn plain_port(world: &World) -> u16 {
    let config = std::fs::read_to_string(world.broker.directory.path().join("mosquitto.conf")).unwrap();
    let last = config.lines().rfind(|line| line.starts_with("listener")).unwrap();
    last.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_client_certificate_is_presented_to_a_broker_by_host_and_by_url() {
    for scheme in ["", "mqtts://"] {
        let world = with_asking_broker();
        let observer = Observer::connect(plain_port(&world), world.site.device());
        let endpoint = format!("{scheme}localhost:{}", world.broker.port);
        let daemon = run(&world, &x509(&world, &world.certificates), &endpoint);
        observer.wait_for_status("started", 1);
        daemon.stop();
    }
}

#[test]
fn a_certificate_of_another_authority_is_told_in_words() {
    let world = with_asking_broker();
    let other = Certificates::make(&world.site.path().join("other"));
    let endpoint = format!("localhost:{}", world.broker.port);
    let daemon = run(&world, &x509(&world, &other), &endpoint);
    daemon.wait_for_line("the broker does not accept our client certificate");
    daemon.stop();
}

#[test]
fn a_key_that_does_not_fit_is_told_before_anything_is_sent() {
    let world = World::new(Door::Certificate);
    let other = Certificates::make(&world.site.path().join("other"));
    let mut sets = x509(&world, &world.certificates);
    sets[2] = format!("iot_key={}", other.text("client.key"));
    let daemon = run(&world, &sets, &world.gateway.endpoint());
    let line = daemon.wait_for_line("iot_key names");
    assert!(line.contains("is not the key of the certificate"), "{line}");
    assert_eq!(world.gateway.attempts.with(<[_]>::len), 0);
    daemon.stop();
}

#[test]
fn another_port_than_8883_announces_mqtt_in_the_tls_handshake() {
    let world = World::new(Door::Certificate);
    let observer = world.observer();
    let daemon = run(&world, &x509(&world, &world.certificates), &world.gateway.endpoint());
    observer.wait_for_status("started", 1);
    let attempt = world.gateway.attempts.with(|attempts| attempts[0].clone());
    assert_eq!(attempt.alpn.as_deref(), Some("x-amzn-mqtt-ca"));
    daemon.stop();
}

#[test]
fn with_a_certificate_and_an_endpoint_nothing_else_is_tried() {
    let world = with_asking_broker();
    let endpoint = format!("iot_endpoint=localhost:{}", world.broker.port);
    let mut sets = x509(&world, &world.certificates);
    sets.push(endpoint);
    let sets: Vec<_> = sets.iter().map(String::as_str).collect();
    let output = world.command("check", &sets).arg("--online").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("  identity: not needed") && text.contains("  mqtt: ok"),
        "{text}"
    );
}
