//! The connection to the peer: identity, TLS, frames in and out.
