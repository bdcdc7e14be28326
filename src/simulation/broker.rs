//! The simulated MQTT broker: one client, its session, one retained command.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};

use super::ledger::{CommandId, LARGE_COMMAND, Ledger, command_payload};
use super::network::LinkId;
use super::plan::{Millis, Plan, Refusal};
use crate::device::Topics;

/// What the broker does after a packet or an incident.
#[derive(Debug)]
pub(super) enum Action {
    /// Sends a packet after this time.
    Send {
        link: LinkId,
        packet: Packet,
        after: Millis,
    },
    Close(LinkId),
}

/// The broker.
#[derive(Debug)]
pub(super) struct Broker {
    topics: Topics,
    clients: BTreeMap<LinkId, Client>,
    active: Option<LinkId>,
    session: Option<Session>,
    retained: Option<CommandId>,
    /// How new connections fail.
    pub refusal: Option<Refusal>,
    /// It acknowledges nothing.
    pub is_silent: bool,
    /// The next acknowledgement is sent twice.
    pub repeat_next: bool,
    /// The next connection finds no session.
    pub forgets_session: bool,
    last_command: Option<(LinkId, Publish)>,
}

/// One connection.
#[derive(Debug, Default)]
struct Client {
    refusal: Option<Refusal>,
    /// Packet ids of inferences that are not acknowledged.
    unacknowledged: BTreeSet<u16>,
}

/// What the broker keeps for the client over connections.
#[derive(Debug, Default)]
struct Session {
    is_subscribed: bool,
    /// Sent and not acknowledged.
    sent: BTreeMap<u16, Publication>,
    queued: VecDeque<Publication>,
    last_id: u16,
}

/// A message to the client.
#[derive(Debug, Clone, Copy)]
struct Publication {
    /// `None`: the empty message that clears a retained command.
    command: Option<CommandId>,
    retain: bool,
}

impl Broker {
    pub fn new(topics: Topics) -> Self {
        Self {
            topics,
            clients: BTreeMap::new(),
            active: None,
            session: None,
            retained: None,
            refusal: None,
            is_silent: false,
            repeat_next: false,
            forgets_session: false,
            last_command: None,
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, link: LinkId) {
        self.clients.remove(&link);
        if self.active == Some(link) {
            self.active = None;
        }
    }

    /// Whether the connection has ended for the broker, so that its packets are not read any more.
    pub fn knows(&self, link: LinkId) -> bool {
        self.clients.contains_key(&link)
    }

    pub fn accepted(&mut self, link: LinkId) {
        let refusal = self.refusal;
        self.clients.insert(
            link,
            Client {
                refusal,
                ..Client::default()
            },
        );
    }

    /// The connection that is in use.
    pub fn active(&self) -> Option<LinkId> {
        self.active
    }

    /// Whether the client can send and receive.
    pub fn is_subscribed(&self) -> bool {
        let session = self.session.as_ref();
        self.active.is_some() && session.is_some_and(|session| session.is_subscribed)
    }

    /// Whether no command waits for the client.
    pub fn has_no_commands(&self) -> bool {
        let idle = self
            .session
            .as_ref()
            .is_none_or(|session| session.sent.is_empty() && session.queued.is_empty());
        idle && self.retained.is_none()
    }

    /// All connections are lost; the session may be lost as well.
    pub fn restart(&mut self, keeps_session: bool) {
        self.clients.clear();
        self.active = None;
        if !keeps_session {
            self.session = None;
        }
    }

    /// Reads one packet.
    ///
    /// # Errors
    /// The client broke a rule.
    pub fn receive(
        &mut self,
        link: LinkId,
        packet: Packet,
        plan: &Plan,
        ledger: &mut Ledger,
        rng: &mut StdRng,
    ) -> Result<Vec<Action>, String> {
        let refusal = self.clients.get(&link).and_then(|client| client.refusal);
        match packet {
            Packet::Connect(connect) => Ok(self.connect(link, connect.clean_session, refusal)),
            Packet::Subscribe(subscribe) => {
                if refusal == Some(Refusal::NoSubscription) {
                    let codes = vec![SubscribeReasonCode::Failure];
                    return Ok(vec![send(link, Packet::SubAck(SubAck::new(subscribe.pkid, codes)))]);
                }
                Ok(self.subscribe(link, subscribe.pkid))
            }
            Packet::Publish(publish) => self.publish(link, publish, plan, ledger, rng),
            Packet::PubAck(ack) => {
                let acknowledged = self.session.as_mut().and_then(|session| session.sent.remove(&ack.pkid));
                if let Some(command) = acknowledged.and_then(|publication| publication.command) {
                    ledger.command_acknowledged(command);
                }
                Ok(Vec::new())
            }
            Packet::PingReq => Ok(vec![send(link, Packet::PingResp)]),
            Packet::Disconnect => {
                ledger.disconnected_in_order();
                self.disconnected(link);
                Ok(vec![Action::Close(link)])
            }
            other => Err(format!("the client sent {other:?}")),
        }
    }

    fn connect(&mut self, link: LinkId, clean: bool, refusal: Option<Refusal>) -> Vec<Action> {
        let code = match refusal {
            Some(Refusal::NoAnswer) => return Vec::new(),
            Some(Refusal::Closed) => return vec![Action::Close(link)],
            Some(Refusal::Unavailable) => ConnectReturnCode::ServiceUnavailable,
            Some(Refusal::NotAuthorized) => ConnectReturnCode::NotAuthorized,
            _ => ConnectReturnCode::Success,
        };
        if code != ConnectReturnCode::Success {
            return vec![
                send(link, Packet::ConnAck(ConnAck::new(code, false))),
                Action::Close(link),
            ];
        }
        let mut actions = Vec::new();
        if let Some(before) = self.active.replace(link).filter(|before| *before != link) {
            self.clients.remove(&before);
            actions.push(Action::Close(before));
        }
        let forgets = std::mem::take(&mut self.forgets_session);
        let present = self.session.is_some() && !clean && !forgets;
        if !present {
            self.session = Some(Session::default());
        }
        actions.push(send(link, Packet::ConnAck(ConnAck::new(code, present))));
        if refusal == Some(Refusal::ClosedAfterAccepting) {
            actions.push(Action::Close(link));
            return actions;
        }
        // What the session holds, the oldest first.
        let session = self.session.get_or_insert_default();
        let again: Vec<_> = session
            .sent
            .iter()
            .map(|(id, publication)| (*id, *publication))
            .collect();
        for (id, publication) in again {
            actions.push(self.send_publication(link, id, publication, true));
        }
        actions.extend(self.send_queued(link));
        actions
    }

    fn subscribe(&mut self, link: LinkId, id: u16) -> Vec<Action> {
        let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        let mut actions = vec![send(link, Packet::SubAck(SubAck::new(id, codes)))];
        let retained = self.retained.map(|command| Publication {
            command: Some(command),
            retain: true,
        });
        if let Some(session) = &mut self.session {
            session.is_subscribed = true;
            session.queued.extend(retained);
        }
        actions.extend(self.send_queued(link));
        actions
    }

    fn send_queued(&mut self, link: LinkId) -> Vec<Action> {
        let mut sent = Vec::new();
        if let Some(session) = &mut self.session {
            while let Some(publication) = session.queued.pop_front() {
                session.last_id = session.last_id % 60_000 + 1;
                session.sent.insert(session.last_id, publication);
                sent.push((session.last_id, publication));
            }
        }
        sent.into_iter()
            .map(|(id, publication)| self.send_publication(link, id, publication, false))
            .collect()
    }

    fn send_publication(&mut self, link: LinkId, id: u16, publication: Publication, dup: bool) -> Action {
        let payload = publication.command.map_or_else(Bytes::new, command_payload);
        let publish = Publish {
            dup,
            retain: publication.retain,
            pkid: id,
            ..Publish::from_bytes(&self.topics.command_input, QoS::AtLeastOnce, payload)
        };
        if publication.command.is_some_and(|command| command != LARGE_COMMAND) {
            self.last_command = Some((link, publish.clone()));
        }
        send(link, Packet::Publish(publish))
    }

    /// Somebody publishes a command.
    pub fn command(&mut self, command: CommandId, retained: bool) -> Vec<Action> {
        if retained {
            self.retained = Some(command);
        }
        self.queue(Publication {
            command: Some(command),
            retain: false,
        })
    }

    fn queue(&mut self, publication: Publication) -> Vec<Action> {
        if let Some(session) = self.session.as_mut().filter(|session| session.is_subscribed) {
            session.queued.push_back(publication);
        }
        match self.active {
            Some(link) => self.send_queued(link),
            None => Vec::new(),
        }
    }

    /// Sends the last command again on the same connection, unless the client has acknowledged and forgotten it.
    pub fn redeliver(&self, is_forgotten: impl Fn(&[u8]) -> bool) -> Vec<Action> {
        let is_acknowledged = |id| {
            self.session
                .as_ref()
                .is_none_or(|session| !session.sent.contains_key(&id))
        };
        let again = self.last_command.iter().filter(|(link, publish)| {
            self.active == Some(*link) && !(is_acknowledged(publish.pkid) && is_forgotten(&publish.payload))
        });
        again
            .map(|(link, publish)| {
                let again = Publish {
                    dup: true,
                    ..publish.clone()
                };
                send(*link, Packet::Publish(again))
            })
            .collect()
    }

    fn publish(
        &mut self,
        link: LinkId,
        publish: Publish,
        plan: &Plan,
        ledger: &mut Ledger,
        rng: &mut StdRng,
    ) -> Result<Vec<Action>, String> {
        let topics = &self.topics;
        let is_inference = publish.topic == topics.inference_output || publish.topic == topics.events;
        let mut actions = Vec::new();
        if is_inference {
            ledger.inference_received(link, &publish.payload)?;
        } else if publish.topic == topics.metrics {
            ledger.metrics_received(&publish.payload);
        } else if publish.topic == topics.command_output {
            ledger.answer_received(&publish.payload)?;
        } else if publish.topic == topics.command_input && publish.retain && publish.payload.is_empty() {
            self.retained = None;
            actions.extend(self.queue(Publication {
                command: None,
                retain: false,
            }));
        } else {
            return Err(format!(
                "the client published {} bytes on {}",
                publish.payload.len(),
                publish.topic
            ));
        }
        if publish.qos == QoS::AtMostOnce {
            return Ok(actions);
        }
        if is_inference && let Some(client) = self.clients.get_mut(&link) {
            client.unacknowledged.insert(publish.pkid);
            let in_flight = client.unacknowledged.len();
            if in_flight > plan.bounds.inference_window {
                return Err(format!("{in_flight} inferences are in flight"));
            }
        }
        if !self.is_silent {
            let after = rng.random_range(plan.acknowledgement.clone());
            let times = 1 + usize::from(std::mem::take(&mut self.repeat_next));
            actions.extend((0..times).map(|_| Action::Send {
                link,
                packet: Packet::PubAck(PubAck::new(publish.pkid)),
                after,
            }));
        }
        Ok(actions)
    }

    /// The acknowledgement of this packet is on its way.
    pub fn acknowledges(&mut self, link: LinkId, id: u16) {
        if let Some(client) = self.clients.get_mut(&link) {
            client.unacknowledged.remove(&id);
        }
    }
}

fn send(link: LinkId, packet: Packet) -> Action {
    Action::Send { link, packet, after: 0 }
}
