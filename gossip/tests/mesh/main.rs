//! The mesh over real QUIC on loopback: several nodes in one process, each with a socket of its own. Every wait is an `eventually` with
//! a generous bound, because the machine may be busy; what is asserted afterwards is exact.

mod certificates;
mod discovery;
mod groups;
mod harness;
mod hostile;
mod links;
mod membership;
mod refusals;
