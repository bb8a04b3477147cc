//! One block resource: writes, flush, resync.
