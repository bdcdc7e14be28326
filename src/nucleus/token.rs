//! A new token from Greengrass Lite, which forgets the tokens of running components when its IPC daemon is restarted.
//!
//! Lite accepts a component's name in place of the token from a process of that component's systemd unit, and answers with a
//! token (its recipe runner gets the first token in this way). The classic nucleus restarts its components when it is
//! restarted, so their tokens are always valid.

use std::io;
use std::path::Path;

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::BytesMut;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::util::secret::Secret;

/// `:message-type` of the first message of a client, in AWS event stream RPC.
const CONNECT: i32 = 4;
/// An answer to [`CONNECT`] has a token and a few headers.
const MAX_ANSWER: usize = 4096;

/// The component that this process belongs to, by its systemd unit `ggl.<component>.service`; `None`: this is not Lite.
pub(super) fn own_component() -> Option<String> {
    component_of(&std::fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The component whose unit is in the text of `/proc/<pid>/cgroup`. The unit of the install step is
/// `ggl.<component>.install.service`.
pub(super) fn component_of(cgroup: &str) -> Option<String> {
    let mut names = cgroup.lines().flat_map(|line| line.rsplit('/'));
    let unit = names.find_map(|name| name.strip_prefix("ggl.")?.strip_suffix(".service"))?;
    let component = unit.strip_suffix(".install").unwrap_or(unit);
    (!component.is_empty()).then(|| component.to_owned())
}

/// Asks the nucleus at `socket` for the token of `component`.
///
/// # Errors
/// The connection fails, or the nucleus does not give a token to this process.
pub(super) async fn renewed_token(socket: &Path, component: &str) -> io::Result<Secret> {
    let mut stream = UnixStream::connect(socket).await?;
    let header = |name: &'static str, value| Header::new(name, value);
    let connect = Message::new(json!({"componentName": component}).to_string())
        .add_header(header(":message-type", HeaderValue::Int32(CONNECT)))
        .add_header(header(":message-flags", HeaderValue::Int32(0)))
        .add_header(header(":stream-id", HeaderValue::Int32(0)))
        .add_header(header(":version", HeaderValue::String("0.1.0".into())))
        .add_header(header(":content-type", HeaderValue::String("application/json".into())));
    let mut frame = Vec::new();
    write_message_to(&connect, &mut frame).map_err(io::Error::other)?;
    stream.write_all(&frame).await?;

    let (mut decoder, mut answer) = (MessageFrameDecoder::new(), BytesMut::new());
    while answer.len() < MAX_ANSWER && stream.read_buf(&mut answer).await? > 0 {
        if let DecodedFrame::Complete(message) = decoder.decode_frame(&mut answer).map_err(io::Error::other)? {
            return token_in(&message).ok_or_else(|| io::Error::other("the answer has no token"));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

pub(super) fn token_in(message: &Message) -> Option<Secret> {
    let header = message
        .headers()
        .iter()
        .find(|header| header.name().as_str() == "svcuid")?;
    let token = header.value().as_string().ok()?.as_str();
    (!token.is_empty()).then(|| Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_named_by_its_unit() {
        for (cgroup, component) in [
            ("0::/system.slice/ggl.My.Component.service\n", Some("My.Component")),
            ("0::/system.slice/ggl.My.install.service\n", Some("My")),
            ("1:name=systemd:/system.slice/ggl.My.service\n0::/x\n", Some("My")),
            ("0::/system.slice/ggl.My.service/payload\n", Some("My")),
            ("0::/system.slice/greengrass.service\n", None),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("0::/system.slice/ggl..service", None),
            ("", None),
        ] {
            assert_eq!(component_of(cgroup).as_deref(), component, "{cgroup:?}");
        }
    }
}
