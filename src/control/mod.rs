//! HTTP/JSON on the unix socket: status, events and commands.
