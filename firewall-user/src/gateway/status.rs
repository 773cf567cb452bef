//! What `status` tells of the gateway.
