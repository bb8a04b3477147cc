//! A world that is told step by step what happens, for scenarios with a name.

use hotpair::replica::{AgentCommand, Answer, Command, LinkStatus, Refused, RequestId, Status};
use hotpair::units::{BLOCK_LEN, ReplicationMode, ZeroKind};

use crate::ghost::Excuse;
use crate::load::{Ask, Registers, Spot};
use crate::oracle::stamp::SECTOR_LEN;
use crate::plan::Plan;
use crate::world::{Event, World, millis};

/// The node that serves at the start of every script.
pub(crate) const A: usize = 0;
/// The other one.
pub(crate) const B: usize = 1;

/// A scripted pair of 16 MiB. Every wait has a limit; what takes longer is a failed test.
pub(crate) struct Script {
    pub(crate) world: World,
}

impl Script {
    /// A pair in sync, and a client that is connected to A.
    pub(crate) fn pair(mode: ReplicationMode) -> Self {
        Self::with_plan(Plan::calm(mode, 16 << 20))
    }

    /// The same with other limits.
    pub(crate) fn with_plan(plan: Plan) -> Self {
        let spot = Spot { start: 0, count: 8 * 1024, register_len: SECTOR_LEN };
        let in_new_part = Spot { start: plan.size, ..spot };
        let late = if plan.grown.is_empty() { Vec::new() } else { vec![in_new_part] };
        let mut script = Self { world: World::with_spots(plan, vec![spot], late, None) };
        script.world.after(0, Event::Start(A));
        script.world.after(0, Event::Start(B));
        script.world.after(millis(10), Event::Dial);
        script.world.begin_witness();
        script.world.after(millis(10), Event::Client(0));
        script.until("the nodes know each other", |world| {
            world.status(A).is_some_and(|status| status.peer.is_some())
        });
        let first = if script.world.has_cluster() {
            let (force, accept_data_loss) = (false, false);
            Command::Agent(AgentCommand::Promote { force, accept_data_loss })
        } else {
            promote()
        };
        if let Err(refused) = script.command(A, first) {
            // The arbiter's first record names the preferred node.
            assert_eq!(refused.next, "hotpair switchover vm1", "{refused:?}");
            script.until_serving(B);
            script.until_in_sync();
            script.command(B, Command::Switchover).unwrap();
        }
        script.until_in_sync();
        script.until_serving(A);
        script
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn pass(&mut self, count: u64) {
        let end = self.world.now + millis(count);
        self.world.run_until(end).unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// Waits at most a minute.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        for _ in 0..12_000 {
            if is_so(&self.world) {
                return;
            }
            self.pass(5);
        }
        panic!("not within a minute: {what}; {:#?}", [self.world.status(A), self.world.status(B)]);
    }

    /// Waits at most a minute, and looks every 20 microseconds.
    pub(crate) fn until_exactly(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let end = self.world.now + millis(60_000);
        while self.world.now < end {
            if is_so(&self.world) {
                return;
            }
            let next = self.world.now + 20_000;
            self.world.run_until(next).unwrap_or_else(|broken| panic!("{broken}"));
        }
        panic!("not within a minute: {what}; {:#?}", [self.world.status(A), self.world.status(B)]);
    }

    /// Waits until both copies are complete and no mark is left.
    pub(crate) fn until_in_sync(&mut self) {
        self.until("in sync", |world| {
            let marks: u64 = world
                .nodes
                .iter()
                .map(|node| node.core().map_or(u64::MAX / 2, |core| core.dirty().count()))
                .sum();
            world.is_in_sync() && marks == 0 && world.differences.count() == 0
        });
    }

    /// Waits until the client is connected to that node.
    pub(crate) fn until_serving(&mut self, at: usize) {
        self.until("a node serves", |world| world.clients.node_of(0) == Some(at));
    }

    /// Writes so many blocks from that one, and waits for the answer.
    pub(crate) fn write(&mut self, block: u64, blocks: u64) {
        let request = self.begin_write(block, blocks);
        self.until("a write is answered", |world| world.clients.is_settled(request));
    }

    /// Writes without waiting.
    pub(crate) fn begin_write(&mut self, block: u64, blocks: u64) -> RequestId {
        let count = blocks * BLOCK_LEN / SECTOR_LEN;
        let registers = Registers { start: block * BLOCK_LEN, count, register_len: SECTOR_LEN };
        self.ask(Ask::Write { registers, fua: false })
    }

    /// Zeroes so many blocks with FUA, and waits for the answer.
    pub(crate) fn zero_with_fua(&mut self, block: u64, blocks: u64) {
        let count = blocks * BLOCK_LEN / SECTOR_LEN;
        let registers = Registers { start: block * BLOCK_LEN, count, register_len: SECTOR_LEN };
        let (kind, fua, fast_only) = (ZeroKind::Trim, true, false);
        let request = self.ask(Ask::Zero { registers, kind, fua, fast_only });
        self.until("zeroes are answered", |world| world.clients.is_settled(request));
    }

    /// Reads without waiting.
    pub(crate) fn begin_read(&mut self, block: u64, blocks: u64) -> RequestId {
        let count = blocks * BLOCK_LEN / SECTOR_LEN;
        let registers = Registers { start: block * BLOCK_LEN, count, register_len: SECTOR_LEN };
        self.ask(Ask::Read(registers))
    }

    /// Reads so many blocks, and waits for the answer.
    pub(crate) fn read(&mut self, block: u64, blocks: u64) {
        let request = self.begin_read(block, blocks);
        self.until("a read is answered", |world| world.clients.is_settled(request));
    }

    /// Flushes without waiting.
    pub(crate) fn begin_flush(&mut self) -> RequestId {
        self.ask(Ask::Flush)
    }

    /// Flushes, and waits for the answer.
    pub(crate) fn flush(&mut self) {
        let request = self.begin_flush();
        self.until("a flush is answered", |world| world.clients.is_settled(request));
    }

    fn ask(&mut self, ask: Ask) -> RequestId {
        self.until("the client is connected", |world| world.clients.node_of(0).is_some());
        let request = self.world.ask_this(0, ask).unwrap_or_else(|broken| panic!("{broken}"));
        request.unwrap()
    }

    /// Ends a process without warning; it stays down.
    pub(crate) fn kill(&mut self, at: usize) {
        self.world.nodes[at].is_held_down = true;
        self.world.kill(at, false).unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// Takes the power from a machine; it stays down.
    pub(crate) fn lose_power(&mut self, at: usize) {
        self.world.nodes[at].is_held_down = true;
        self.world.kill(at, true).unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// The process of a node does nothing for so many milliseconds.
    pub(crate) fn pause(&mut self, at: usize, length: u64) {
        self.world.pause(at, millis(length));
    }

    /// Starts what is down.
    pub(crate) fn start(&mut self, at: usize) {
        self.world.nodes[at].is_held_down = false;
        self.world.on_start(at).unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// Cuts the wire between the nodes.
    pub(crate) fn cut(&mut self) {
        self.world.net.cut(A);
        self.world.net.cut(B);
    }

    /// Cuts the wire, and A writes alone. What B then writes is a split brain that was made on
    /// purpose.
    pub(crate) fn part_ways(&mut self) {
        self.write(0, 32);
        self.cut();
        self.write(8, 8);
        self.world.operator.split_is_explained = true;
        self.world.ghost.excuse = Excuse::Accepted;
        self.world.ghost.is_split = true;
        self.until("B misses A", |world| {
            world.status(B).is_some_and(|status| status.link == LinkStatus::Connecting)
        });
    }

    /// Mends it.
    pub(crate) fn mend(&mut self) {
        for at in [A, B] {
            let now = self.world.now;
            self.world.net.mend(now, at);
        }
    }

    /// Types a command and waits for its answer.
    pub(crate) fn command(&mut self, at: usize, command: Command) -> Result<Answer, Refused> {
        let typed = self.world.command(at, command).unwrap_or_else(|broken| panic!("{broken}"));
        for _ in 0..6_000 {
            if let Some(answer) = self.world.operator.take_answer(typed) {
                return answer;
            }
            self.pass(5);
        }
        panic!("no answer within half a minute; {:#?}", self.status(at));
    }

    /// What a running node says of itself.
    pub(crate) fn status(&self, at: usize) -> Status {
        self.world.status(at).unwrap()
    }

    /// Both copies are complete and hold what clients were told.
    pub(crate) fn check_copies(&self) {
        for node in &self.world.nodes {
            let checked = self.world.ghost.check_copy(&node.files.data);
            checked.unwrap_or_else(|broken| panic!("{broken}"));
        }
        self.world.ghost.check_history().unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// `hotpair promote`.
pub(crate) fn promote() -> Command {
    Command::Promote { force: false, accept_data_loss: false }
}

/// `hotpair promote --force --peer-is-fenced`.
pub(crate) fn force() -> Command {
    Command::Promote { force: true, accept_data_loss: false }
}
