//! Stands for the driver of directories where that is not built in: there is none, and a configuration
//! with one is refused.

use std::convert::Infallible;
use std::path::PathBuf;
use std::task::Context;

use super::error::DaemonError;
use crate::config::{NodeConfig, NodeResource};
use crate::control::tree_status::TreeStatus;
use crate::replica::{
    Answer, Closing, DiskOutcome, Following, Input, IoId, Refused, RequestId, RequestResult,
    TreeCommand,
};
use crate::store::StoreError;
use crate::units::{ByteRange, Epoch, Instant, ServeMode};
use crate::wire::TreeMessage;

/// As with directories.
#[derive(Debug)]
#[expect(dead_code, reason = "nothing of it is ever made")]
pub(super) enum Deed {
    Input(Input),
    Write { io: IoId, block: Box<[u8; 4096]> },
    Sync { io: IoId },
    Say { to: Following, message: TreeMessage },
    CloseLink { what: &'static str },
    Answer { request: u64, result: Result<Answer, Refused> },
    Event { kind: &'static str, reason: String },
}

/// As with directories.
#[expect(dead_code, reason = "nobody reads it")]
pub(super) struct Around {
    pub(super) now: Instant,
    pub(super) serve_mode: ServeMode,
    pub(super) accepts_requests: bool,
    pub(super) export_epoch: Option<Epoch>,
    pub(super) queued: Option<usize>,
}

/// There is none.
pub(super) struct TreeDesk(Infallible);

impl TreeDesk {
    pub(super) fn next_deed(&mut self) -> Option<Deed> {
        match self.0 {}
    }

    pub(super) fn poll(&mut self, _cx: &mut Context<'_>, _around: Around) {
        match self.0 {}
    }

    pub(super) fn tick(&mut self, _now: Instant) {
        match self.0 {}
    }

    pub(super) fn follow(&mut self, _session: Option<Following>) {
        match self.0 {}
    }

    pub(super) fn on_message(&mut self, _message: TreeMessage) {
        match self.0 {}
    }

    pub(super) fn on_write(&mut self, _io: IoId, _range: ByteRange, _bytes: &[u8]) {
        match self.0 {}
    }

    pub(super) fn on_zero(&mut self, _io: IoId, _range: ByteRange) {
        match self.0 {}
    }

    pub(super) fn on_sync(&mut self, _io: IoId) {
        match self.0 {}
    }

    pub(super) fn takes_disk(&mut self, _io: IoId, _outcome: &DiskOutcome) -> bool {
        match self.0 {}
    }

    pub(super) fn on_reply(&mut self, _request: RequestId, _result: RequestResult) {
        match self.0 {}
    }

    pub(super) fn on_open(&mut self) {
        match self.0 {}
    }

    pub(super) fn on_close(&mut self, _closing: Closing) {
        match self.0 {}
    }

    pub(super) fn on_settle(&mut self) {
        match self.0 {}
    }

    pub(super) fn on_command(&mut self, _request: u64, _command: TreeCommand) {
        match self.0 {}
    }

    pub(super) fn status(&self) -> TreeStatus {
        match self.0 {}
    }
}

/// There is none.
pub(super) struct OpenedTree(Infallible);

impl OpenedTree {
    pub(super) fn note_lost_power(&mut self) -> Result<(), std::io::Error> {
        match self.0 {}
    }

    pub(super) fn start(self, _name: &str) -> Result<(TreeDesk, Option<String>), StoreError> {
        match self.0 {}
    }
}

pub(super) fn open_tree(
    _node: &NodeConfig,
    resource: &NodeResource,
    _epoch: Epoch,
) -> Result<Option<OpenedTree>, DaemonError> {
    match resource.directory {
        None => Ok(None),
        Some(_) => Err(refused(resource)),
    }
}

pub(super) fn prepare_register(_cluster: &str, resource: &NodeResource) -> Result<(), DaemonError> {
    Err(refused(resource))
}

pub(super) fn capture_first(_cluster: &str, resource: &NodeResource) -> Result<(), DaemonError> {
    Err(refused(resource))
}

pub(super) fn register_path(resource: &NodeResource) -> PathBuf {
    resource.metadata_dir.clone()
}

fn refused(resource: &NodeResource) -> DaemonError {
    DaemonError::NoDirectories { resource: resource.name.clone() }
}
