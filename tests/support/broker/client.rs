//! What the mock broker does with a packet of a client.

use super::*;

/// The broker's side of one connection.
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) out: mpsc::UnboundedSender<Out>,
    pub(super) id: Option<String>,
    pub(super) received: usize,
    pub(super) held: Vec<u16>,
    pub(super) orderly: bool,
}

impl Client {
    /// False: the connection is to be closed.
    pub(super) fn received(&mut self, shared: &Shared, packet: Packet) -> bool {
        let mut state = shared.state.lock();
        let entry = Entry {
            at: Instant::now(),
            connection: self.number,
            way: Way::FromClient,
            packet: packet.clone(),
        };
        state.log.push(entry);
        self.received += 1;
        if state.behaviour.drop_after.is_some_and(|limit| self.received >= limit) {
            return false;
        }
        match packet {
            Packet::Connect(connect) => return self.connect(&mut state, connect),
            Packet::Publish(publish) => return self.publish(&mut state, publish),
            Packet::Subscribe(subscribe) => self.subscribe(&mut state, subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                if let Some(session) = self.session(&mut state) {
                    session
                        .filters
                        .retain(|(filter, _)| !unsubscribe.topics.contains(filter));
                }
                self.answer(Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)));
            }
            Packet::PubAck(ack) => {
                if let Some(session) = self.session(&mut state) {
                    session.unacked.retain(|publish| publish.pkid != ack.pkid);
                }
            }
            Packet::PingReq => self.answer(Packet::PingResp),
            Packet::Disconnect => {
                self.orderly = true;
                return false;
            }
            _ => {}
        }
        true
    }

    fn answer(&self, packet: Packet) {
        let _ = self.out.send(Out::Packet(packet));
    }

    fn session<'a>(&self, state: &'a mut State) -> Option<&'a mut Session> {
        let session = state.sessions.get_mut(self.id.as_ref()?)?;
        session
            .live
            .as_ref()
            .is_some_and(|live| live.connection == self.number)
            .then_some(session)
    }

    fn connect(&mut self, state: &mut State, connect: Connect) -> bool {
        match state.behaviour.on_connect {
            OnConnect::Silent => return true,
            OnConnect::Refuse(code) => {
                self.answer(Packet::ConnAck(ConnAck::new(code, false)));
                return false;
            }
            OnConnect::Accept | OnConnect::AcceptAndClose => {}
        }
        let kept = state.sessions.remove(&connect.client_id).unwrap_or_default();
        if let Some(live) = &kept.live {
            let _ = live.out.send(Out::Close);
            if let Some(will) = kept.will.clone() {
                state.route_will(will);
            }
        }
        let resume = kept.persistent && !connect.clean_session && !state.behaviour.forget_sessions;
        let mut session = if resume { kept } else { Session::default() };
        session.persistent = !connect.clean_session;
        session.will = connect.last_will;
        session.live = Some(Live {
            connection: self.number,
            out: self.out.clone(),
        });
        self.answer(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, resume)));
        for mut publish in std::mem::take(&mut session.unacked) {
            publish.dup = true;
            session.deliver(publish);
        }
        for publish in std::mem::take(&mut session.queue) {
            session.deliver(publish);
        }
        self.id = Some(connect.client_id.clone());
        state.sessions.insert(connect.client_id, session);
        state.behaviour.on_connect == OnConnect::Accept
    }

    fn publish(&mut self, state: &mut State, publish: Publish) -> bool {
        if publish.retain && state.behaviour.drop_on_clear {
            return false;
        }
        if publish.qos == QoS::AtLeastOnce {
            self.acknowledge(state.behaviour.acks, publish.pkid);
        }
        state.route(Publish { dup: false, ..publish });
        true
    }

    fn acknowledge(&mut self, acks: Acks, id: u16) {
        let ack = |id| Packet::PubAck(PubAck::new(id));
        match acks {
            Acks::Normal => self.answer(ack(id)),
            Acks::Stall => {}
            Acks::Twice => (0..2).for_each(|_| self.answer(ack(id))),
            Acks::Invented => [id, 60_000].into_iter().for_each(|id| self.answer(ack(id))),
            Acks::Reversed(count) => {
                self.held.push(id);
                if self.held.len() >= count {
                    self.release_held();
                }
            }
        }
    }

    pub(super) fn release_held(&mut self) {
        for id in std::mem::take(&mut self.held).into_iter().rev() {
            self.answer(Packet::PubAck(PubAck::new(id)));
        }
    }

    fn subscribe(&self, state: &mut State, subscribe: Subscribe) {
        let Behaviour {
            stall_suback,
            refuse_subscription,
            ..
        } = state.behaviour;
        if stall_suback {
            return;
        }
        let answer = |filter: &rumqttc::SubscribeFilter| match refuse_subscription {
            true => SubscribeReasonCode::Failure,
            false => SubscribeReasonCode::Success(filter.qos),
        };
        let codes = subscribe.filters.iter().map(answer).collect();
        self.answer(Packet::SubAck(SubAck::new(subscribe.pkid, codes)));
        if refuse_subscription {
            return;
        }
        let retained: Vec<_> = state.retained.values().cloned().collect();
        let Some(session) = self.session(state) else { return };
        for filter in subscribe.filters {
            session.filters.retain(|(known, _)| *known != filter.path);
            for publish in retained.iter().filter(|publish| matches(&publish.topic, &filter.path)) {
                session.deliver(Publish {
                    retain: true,
                    qos: publish.qos.min_of(filter.qos),
                    ..publish.clone()
                });
            }
            session.filters.push((filter.path, filter.qos));
        }
    }

    pub(super) fn gone(&mut self, shared: &Shared) {
        let mut state = shared.state.lock();
        state.open.remove(&self.number);
        let orderly = self.orderly;
        let Some(session) = self.session(&mut state) else {
            return;
        };
        session.live = None;
        let will = session.will.take().filter(|_| !orderly);
        let persistent = session.persistent;
        if let Some(id) = self
            .id
            .as_ref()
            .filter(|_| !persistent || state.behaviour.forget_sessions)
        {
            state.sessions.remove(id);
        }
        if let Some(will) = will {
            state.route_will(will);
        }
    }
}
