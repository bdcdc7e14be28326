//! What AWS and the Greengrass nucleus answer.

use std::time::Duration;

use ei_greengrass::fuzzing::aws::{api_key, find_value, parse_discovery, refusal};
use ei_greengrass::fuzzing::nucleus::{component_of, port_in, token_in_answer};
use ei_greengrass::fuzzing::util::SecretReference;
use ei_greengrass::nucleus::Nucleus;
use ei_greengrass::util::secret::Secret;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::input::{Input, SECRET, assert_hidden, runtime, scratch};

/// Endpoints, identities and refusals.
pub fn aws_answer(data: &[u8]) {
    let mut input = Input(data);
    let status = 400 + u16::from(input.byte());
    let code = input.part_text();
    let body = input.text();
    parse_discovery(&body);
    let shown = refusal(status, &code, &body);
    assert!(shown.len() < 8000 && !shown.contains(char::is_control), "{shown}");
}

/// Texts of Secrets Manager: no error has a value of them.
pub fn secret_value(data: &[u8]) {
    let mut input = Input(data);
    let key = input.part_text().into_owned();
    let (before, after) = (input.part_text(), input.part_text());
    let reference = SecretReference {
        id: "camera".to_owned(),
        key: (!key.is_empty()).then(|| key.clone()),
    };
    for text in [
        format!("{before}{SECRET}{after}"),
        format!("{{\"{before}\":\"{SECRET}\"{after}}}"),
        format!("{{\"password\":\"{SECRET}\"}}"),
    ] {
        // A secret in the place of a key is named as one.
        let is_key = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| has_key(&value));
        if is_key(&text) {
            continue;
        }
        match find_value(&Secret::new(text.clone()), &reference) {
            Ok(value) => assert!(!value.reveal().is_empty() && !value.reveal().contains('\0')),
            Err(error) => assert_hidden([error.to_string(), format!("{error:?}")]),
        }
        if let Err(error) = api_key(&text) {
            assert_hidden([error]);
        }
    }
}

fn has_key(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.keys().any(|key| key.contains(SECRET)))
}

/// The protocol of the nucleus, as far as it is read here.
pub fn nucleus(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => drop(token_in_answer(input.0)),
        1 => {
            if let Ok(value) = serde_json::from_slice(input.0) {
                assert_ne!(port_in(&value), Some(0));
            }
        }
        _ => assert!(component_of(&input.text()).is_none_or(|component| !component.is_empty())),
    }
}

/// A connection to the nucleus: the program asks for its configuration, and the input is all that the nucleus says.
pub fn nucleus_connection(data: &[u8]) {
    let directory = scratch();
    let socket = directory.path().join("nucleus");
    let mut input = Input(data);
    let length = input.amount() as usize;
    let (hello, answer) = input.0.split_at(length.min(input.0.len()));
    let asked = runtime().block_on(async {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let nucleus = Nucleus::new(&socket, Secret::new(SECRET));
        let serving = async {
            // Again, if the program asks for a new token.
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(hello).await;
                // The program asks when it has understood the hello, and waits for more of it else.
                let _ = timeout(Duration::from_millis(50), stream.read(&mut request)).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        };
        tokio::select! {
            asked = nucleus.parameters() => Some(asked),
            () = serving => None,
        }
    });
    match asked {
        Some(Ok(parameters)) => drop(serde_json::from_str::<Value>(&parameters).expect("a configuration is JSON")),
        Some(Err(error)) => assert_hidden([error.to_string(), format!("{error:?}")]),
        None => {}
    }
}
