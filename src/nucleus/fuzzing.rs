//! What `tests/fuzz` calls here.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use bytes::BytesMut;
use serde_json::Value;

use super::{token, token_exchange};
use crate::util::secret::Secret;

/// The token in the answer of the nucleus. `None`: it is not complete or has none.
pub fn token_in_answer(bytes: &[u8]) -> Option<Secret> {
    let (mut decoder, mut bytes) = (MessageFrameDecoder::new(), BytesMut::from(bytes));
    match decoder.decode_frame(&mut bytes) {
        Ok(DecodedFrame::Complete(message)) => token::token_in(&message),
        _ => None,
    }
}

/// The port in a configuration.
pub fn port_in(value: &Value) -> Option<u16> {
    token_exchange::port_in(value)
}

/// The component that a cgroup belongs to.
pub fn component_of(cgroup: &str) -> Option<String> {
    token::component_of(cgroup)
}
