//! What a replica remembers on disk: bytes to types and back, and pure recovery.
