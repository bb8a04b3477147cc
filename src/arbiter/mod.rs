//! The witness and the way to it, and the way to etcd.
//!
//! [`Witness`] takes connections and passes requests to its desk, which has a seat for each
//! resource; the rule of a seat is in `promotion`. Records become stable elsewhere: the witness
//! gives a [`StoreOrder`] and answers a node when it hears that it was done. [`run_client`] is a
//! node's connection to a witness, `run_etcd` the one to etcd, where nobody decides: there the node
//! asks the rule, and the change is a transaction. Nothing here decides, and nothing here touches a disk.

mod client;
mod desk;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod hearing;
mod security;
mod server;
mod stream;

pub use client::{ClientSettings, News, Order, run_client};
pub use desk::{Key, RECORDS_MAX, STRANGERS_MAX};
pub use error::ArbiterError;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdSettings, Login, run_etcd};
#[cfg(feature = "etcd")]
pub use security::EtcdSecurity;
pub use security::{ClientSecurity, ServerSecurity};
pub use server::{Disk, Patience, STORE_ORDERS_MAX, StoreOrder, Stored, Witness, WitnessSettings};

#[cfg(test)]
mod tests;
