//! What nodes say to each other: bytes to types and back.
