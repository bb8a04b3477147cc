//! The configuration file: TOML to a checked `Config`, errors that point at the line.
