//! What the agent must know of the machine it runs on: interfaces, addresses, routes, resolvers, and the session of whoever
//! types a command. Read from the kernel, in the network namespace of the process.

pub mod addresses;
pub mod interface;
pub mod session;
pub mod watch;
