//! What a match says to its players. The types are the wire's, since outputs travel to gateways as they are.

pub use rookery_protocol::output::{Audience, Body, Joined, Output, PublishedValue};
