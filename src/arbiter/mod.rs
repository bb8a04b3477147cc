//! The witness and the way to it.
//!
//! [`Witness`] takes connections and passes requests to its desk, which has a seat for each
//! resource; the rule of a seat is in `promotion`. Records become stable elsewhere: the witness
//! gives a [`StoreOrder`] and answers a node when it hears that it was done. [`run_client`] is a
//! node's connection to a witness. Nothing here decides, and nothing here touches a disk.

mod client;
mod desk;
mod error;
mod hearing;
mod security;
mod server;
mod stream;

pub use client::{ClientSettings, News, Order, run_client};
pub use desk::{Key, RECORDS_MAX, STRANGERS_MAX};
pub use error::ArbiterError;
pub use security::{ClientSecurity, ServerSecurity};
pub use server::{Disk, Patience, STORE_ORDERS_MAX, StoreOrder, Stored, Witness, WitnessSettings};

#[cfg(test)]
mod tests;
