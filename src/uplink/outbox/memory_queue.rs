//! Holds answers, notices and metrics, which are kept in memory only.

use std::collections::BTreeMap;

use super::token::Token;
use crate::uplink::message::Message;

/// The unacknowledged messages of one class.
#[derive(Debug, Default)]
pub(super) struct MemoryQueue {
    waiting: BTreeMap<Token, Message>,
    sent: BTreeMap<Token, Message>,
    /// Payload bytes of both.
    pub bytes: usize,
}

impl MemoryQueue {
    pub fn put(&mut self, token: Token, message: Message) {
        self.bytes += message.payload.len();
        self.waiting.insert(token, message);
    }

    /// The oldest waiting message that `may_send` accepts, if the window has room.
    pub fn next(&self, window: usize, may_send: impl Fn(Token, &Message) -> bool) -> Option<(Token, &Message)> {
        if self.sent.len() >= window {
            return None;
        }
        let mut waiting = self.waiting.iter().map(|(token, message)| (*token, message));
        waiting.find(|(token, message)| may_send(*token, message))
    }

    /// Removes waiting messages that are out of date.
    pub fn withdraw(&mut self, is_outdated: impl Fn(&Message) -> bool) {
        let bytes = &mut self.bytes;
        self.waiting.retain(|_, message| {
            let keep = !is_outdated(message);
            *bytes -= if keep { 0 } else { message.payload.len() };
            keep
        });
    }

    pub fn send(&mut self, token: Token) -> Option<(Token, Message)> {
        let message = self.waiting.remove(&token)?;
        self.sent.insert(token, message.clone());
        Some((token, message))
    }

    pub fn acked(&mut self, token: Token) -> bool {
        let Some(message) = self.sent.remove(&token) else {
            return false;
        };
        self.bytes -= message.payload.len();
        true
    }

    pub fn requeue_sent(&mut self) {
        self.waiting.append(&mut self.sent);
    }

    pub fn keep_newest(&mut self, count: usize) {
        while self.waiting.len() > count {
            if let Some((_, message)) = self.waiting.pop_first() {
                self.bytes -= message.payload.len();
            }
        }
    }

    /// Drops the oldest waiting messages until the rest fits or only the newest is left. The message that clears a retained
    /// command is never dropped, because a command waits for it. Returns the number of dropped messages.
    pub fn drop_overflow(&mut self, max_bytes: usize, max_messages: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > max_bytes || self.len() > max_messages {
            let newest = self.waiting.last_key_value().map(|(token, _)| *token);
            let oldest = self
                .waiting
                .iter()
                .find(|(_, message)| !message.retain)
                .map(|(token, _)| *token);
            let Some(oldest) = oldest.filter(|oldest| Some(*oldest) != newest) else {
                break;
            };
            if let Some(message) = self.waiting.remove(&oldest) {
                self.bytes -= message.payload.len();
                dropped += 1;
            }
        }
        dropped
    }

    pub fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }
}
