//! Clients that publish with RETAIN, and publish their last message again whenever they connect.

use super::process::SimProcess;
use super::world::World;

/// A message that is sent later than this after the CONNECT might be processed 10 s after it.
const LATEST_MS: i64 = 9_000;
/// Steps in which a message that has arrived is acknowledged, unless something is in the way.
const STEPS: usize = 40;

impl World {
    /// The store of retained messages is ahead of the journal: it holds the last message of each client, even one that
    /// never reached the journal.
    pub(super) fn restore_retained(&self, process: &SimProcess) {
        for message in self.clients.iter().filter_map(|client| client.retained()).map(|id| &self.ledger.messages[id]) {
            process.retain(&message.topic, &message.payload);
        }
    }

    /// A client that has connected publishes its last message again. weir processes it at once, or is killed before it
    /// does: so the message is within 10 s of the CONNECT, and must be counted once.
    pub(super) fn state_comes_again(&mut self, index: usize) -> Result<(), String> {
        let now_ms = self.clock.true_ms();
        let name = self.clients[index].name.clone();
        if self.clients[index].connected_for_ms(now_ms) >= LATEST_MS {
            self.note(format_args!("{name} was connected too late, and connects again"));
            self.clients[index].break_off(0, now_ms);
            return Ok(());
        }
        self.note(format_args!("{name} publishes again what is retained"));
        self.clients[index].publish_state(&mut self.ledger);
        let Some(wire) = self.clients[index].wire().cloned() else { return Ok(()) };
        let find = |process: &SimProcess| (0..process.connections()).find(|&at| wire.is(process.wire(at)));
        for _ in 0..STEPS {
            let Some(process) = &mut self.process else { return Ok(()) };
            let Some(connection) = find(process) else { break };
            let (up, down) = wire.in_flight();
            wire.deliver_up(up);
            wire.deliver_down(down);
            process.poll(connection);
            process.logs[0].step();
            self.clients[index].receive(&mut self.ledger)?;
            if self.clients[index].has_no_message_outstanding() {
                return Ok(());
            }
        }
        self.note(format_args!("weir is killed before the message is late"));
        self.figures.kills += 1;
        self.go_down(false);
        self.start()
    }
}
