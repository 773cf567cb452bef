//! The judgement of the LAN layer: content rules, schema, identity and response filter, without I/O.
//!
//! Empty so far: the DMZ layer in `firewall-ebpf` judges packets; requests come here once the gateway accepts them.
