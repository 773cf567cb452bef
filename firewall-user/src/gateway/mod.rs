//! The gateway: the LAN layer.

pub mod tls;
