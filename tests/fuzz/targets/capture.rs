//! Launch lines, and what cameras send.

use ei_greengrass::capture::{MediaKind, SecretResolver};
use ei_greengrass::config::MicrophoneChannel;
use ei_greengrass::fuzzing::capture::{begins_sequence, prepare};
use ei_greengrass::fuzzing::util::SecretReference;
use ei_greengrass::util::secret::Secret;

use crate::input::{Input, SECRET, assert_hidden};

fn kind(byte: u8) -> MediaKind {
    match byte % 3 {
        0 => MediaKind::Video,
        1 => MediaKind::Audio {
            sample_rate: 16_000,
            channel: MicrophoneChannel::Auto,
        },
        _ => MediaKind::Audio {
            sample_rate: 16_000,
            channel: MicrophoneChannel::Number(2),
        },
    }
}

/// `gst_args` and launch lines.
pub fn launch_line(data: &[u8]) {
    let mut input = Input(data);
    let kind = kind(input.byte());
    let text = input.text();
    match prepare(&text, kind, None) {
        Ok(line) => {
            assert!(
                line.launch.contains("appsink"),
                "the model gets an end: {}",
                line.launch
            );
            assert!(
                line.launch.len() <= 8 * text.len() + 1000,
                "a line does not grow without bound"
            );
        }
        Err(error) => drop(error.to_string()),
    }
}

#[derive(Debug)]
struct OneSecret;

impl SecretResolver for OneSecret {
    fn resolve(&self, references: &[SecretReference]) -> Result<Vec<Secret>, String> {
        Ok(references.iter().map(|_| Secret::new(SECRET)).collect())
    }
}

/// Launch lines with a password, and with the name of a secret, anywhere.
pub fn launch_secrets(data: &[u8]) {
    let mut input = Input(data);
    let kind = kind(input.byte());
    let form = input.byte();
    let (before, after) = (input.part_text(), input.part_text());
    let secret = match form % 4 {
        0 => format!("rtspsrc location=rtsp://user:{SECRET}@10.0.0.1/live"),
        1 => format!("rtspsrc location=rtsp://10.0.0.1/live user-id=me user-pw={SECRET}"),
        2 => "rtspsrc location=rtsp://user:{{secret:camera:password}}@10.0.0.1/live".to_owned(),
        _ => "rtspsrc location=rtsp://10.0.0.1/live user-pw={{secret:camera}}".to_owned(),
    };
    let separator = if form & 4 == 0 { " ! " } else { ":!:" };
    let line = [&*before, &*secret, &*after].join(separator);
    match prepare(&line, kind, Some(&OneSecret)) {
        Ok(line) => assert_hidden(line.shown),
        Err(error) => assert_hidden([error.to_string(), format!("{error:?}")]),
    }
}

/// Access units of H.264.
pub fn video_units(data: &[u8]) {
    begins_sequence(data);
}
