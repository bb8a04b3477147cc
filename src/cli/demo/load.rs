//! Writes with a full queue, and reads everything back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::ledger::{Found, Ledger, Write};
use super::nbd_client::NbdClient;
use super::stamp::Block;
use crate::units::BLOCK_LEN;
use blake3::Hasher;

/// Writes under way at a time.
pub(super) const DEPTH: usize = 32;

/// A client that writes.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) client: NbdClient,
    ledger: &'a mut Ledger,
    waiting: BTreeMap<u64, Write>,
    answered: usize,
}

impl<'a> Load<'a> {
    pub(super) fn new(client: NbdClient, ledger: &'a mut Ledger) -> Self {
        Self { client, ledger, waiting: BTreeMap::new(), answered: 0 }
    }

    /// Writes until `is_enough`, which is told how many writes were acknowledged. When it returns,
    /// the queue is full and all of it was sent.
    pub(super) async fn write_until(
        &mut self,
        mut is_enough: impl FnMut(usize) -> bool,
    ) -> io::Result<()> {
        loop {
            while self.waiting.len() < DEPTH {
                self.write();
            }
            if !self.client.has_answer() {
                self.client.send().await?;
                if is_enough(self.answered) {
                    return Ok(());
                }
            }
            self.answer().await?;
        }
    }

    /// How often the queue was filled and answered.
    pub(super) fn rounds(&self) -> u32 {
        u32::try_from(self.answered / DEPTH).unwrap_or(u32::MAX)
    }

    /// Writes `count` blocks, and waits for all answers.
    pub(super) async fn write_some(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            if self.waiting.len() == DEPTH {
                self.answer().await?;
            }
            self.write();
        }
        self.drain().await
    }

    /// Waits for the answers to all that is under way.
    async fn drain(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.answer().await?;
        }
        Ok(())
    }

    /// Takes the answers that were sent before the node died; says how many writes got none.
    pub(super) async fn outlive(mut self) -> usize {
        // That it breaks is what is waited for.
        let _ = self.drain().await;
        let count = self.waiting.len();
        for write in std::mem::take(&mut self.waiting).into_values() {
            self.ledger.lose(write);
        }
        count
    }

    fn write(&mut self) {
        let write = self.ledger.next_write();
        let bytes = self.ledger.bytes(write);
        let cookie = self.client.write(write.block * BLOCK_LEN, &bytes);
        self.waiting.insert(cookie, write);
    }

    async fn answer(&mut self) -> io::Result<()> {
        let answered = self.client.receive().await?;
        self.answered += 1;
        let write = self.waiting.remove(&answered.cookie);
        self.ledger.acknowledge(write.expect("the client knows its cookies"));
        Ok(())
    }
}

/// Bytes of one READ, and how many of them are under way.
const READ_LEN: u32 = 256 << 10;
const READ_DEPTH: usize = 4;

/// Reads every block through the export and compares it with what was written.
pub(super) async fn read_back(client: &mut NbdClient, ledger: &Ledger) -> io::Result<Found> {
    let size = client.size;
    if size != ledger.len() * BLOCK_LEN {
        return Err(io::Error::other(format!("the export has {size} bytes")));
    }
    let mut found = Found::default();
    let mut waiting = BTreeMap::new();
    let mut asked = 0;
    loop {
        while asked < size && client.in_flight() < READ_DEPTH {
            let len = u32::try_from(size - asked).map_or(READ_LEN, |left| left.min(READ_LEN));
            waiting.insert(client.read(asked, len), asked / BLOCK_LEN);
            asked += u64::from(len);
        }
        if client.in_flight() == 0 {
            return Ok(found);
        }
        let answered = client.receive().await?;
        let first = waiting.remove(&answered.cookie).expect("the client knows its cookies");
        check_blocks(ledger, first, &answered.bytes, &mut found)?;
    }
}

/// Reads a file, compares every block with what was written, and hashes it.
pub(super) async fn examine(path: &Path, ledger: &Ledger) -> io::Result<(Found, blake3::Hash)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut found = Found::default();
    let mut buffer = vec![0; usize::try_from(READ_LEN).expect("u32 fits into usize")];
    for first in (0..ledger.len()).step_by(buffer.len() / BLOCK) {
        let left = usize::try_from(ledger.len() - first).expect("the demo's file has a limit");
        let len = (left * BLOCK).min(buffer.len());
        let bytes = &mut buffer[..len];
        file.read_exact(bytes)?;
        hasher.update(bytes);
        check_blocks(ledger, first, bytes, &mut found)?;
        // Whoever interrupts the demo need not wait for the end of the file.
        tokio::task::yield_now().await;
    }
    Ok((found, hasher.finalize()))
}

const BLOCK: usize = size_of::<Block>();

fn check_blocks(ledger: &Ledger, first: u64, bytes: &[u8], found: &mut Found) -> io::Result<()> {
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    for (block, bytes) in (first..).zip(blocks) {
        ledger.check(block, bytes, found).map_err(io::Error::other)?;
    }
    Ok(())
}
