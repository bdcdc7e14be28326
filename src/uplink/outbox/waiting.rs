//! Answers, notices and metrics while they wait: in memory only.

use std::collections::BTreeMap;

use super::token::Token;
use crate::uplink::message::Message;

/// The messages of one class.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    waiting: BTreeMap<Token, Message>,
    sent: BTreeMap<Token, Message>,
    /// Payload bytes of both.
    pub bytes: usize,
}

impl Waiting {
    pub fn put(&mut self, token: Token, message: Message) {
        self.bytes += message.payload.len();
        self.waiting.insert(token, message);
    }

    /// The oldest that `may_go`, if the window allows one.
    pub fn next(&self, window: usize, may_go: impl Fn(Token, &Message) -> bool) -> Option<(Token, &Message)> {
        if self.sent.len() >= window {
            return None;
        }
        let mut waiting = self.waiting.iter().map(|(token, message)| (*token, message));
        waiting.find(|(token, message)| may_go(*token, message))
    }

    /// Takes back what waits and is no longer true.
    pub fn withdraw(&mut self, is_over: impl Fn(&Message) -> bool) {
        let bytes = &mut self.bytes;
        self.waiting.retain(|_, message| {
            let keep = !is_over(message);
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

    pub fn take_back(&mut self) {
        self.waiting.append(&mut self.sent);
    }

    pub fn keep_newest(&mut self, count: usize) {
        while self.waiting.len() > count {
            if let Some((_, message)) = self.waiting.pop_first() {
                self.bytes -= message.payload.len();
            }
        }
    }

    /// Drops the oldest that wait, until the rest fits or only the newest is left. The clearing of a retained command is
    /// never dropped: a command waits for it. Returns how many were dropped.
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
