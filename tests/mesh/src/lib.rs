//! The mesh alone under faults: nodes that are real processes of [`mesh_node`](../mesh_node/index.html), which run nothing but the
//! mesh, and the means to break them and what is between them.
//!
//! It knows no part of the server, so it is built in seconds; `rookery_tests` uses its faults for whole nodes as well. Nodes are ended
//! by their process id when they are dropped, and a test that fails prints what they logged.

mod binary;
mod clock;
mod cluster;
mod eventually;
pub mod faults;
mod figures;
mod lines;
mod order;
mod ports;
mod process;
mod running;

pub use binary::workspace_binary;
pub use clock::{now_us, used_us};
pub use cluster::MeshCluster;
pub use eventually::{LOOK_EVERY, PATIENCE, eventually, until, until_within};
pub use figures::{Figures, full_scale};
pub use lines::Lines;
pub use order::{Answer, Event, EventKind, Numbered, Order, Pace, Report, Said, Seen, Setup, Tally, Try};
pub use ports::free_ports;
pub use process::{MeshProcess, MeshSpec, mesh_node_binary};
pub use running::Running;
