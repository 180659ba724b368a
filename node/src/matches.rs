//! Matches: deterministic machines. An event goes in, numbered outputs and effects come out, and the record of it says all
//! that a replay needs. No socket, clock, task or store here: who feeds a match and who hears it is `owner`.

pub mod effect;
pub mod event;
pub mod history;
pub mod incident;
pub mod journal;
pub mod machine;
pub mod output;
pub mod part;
pub mod published;
pub mod recording;
pub mod ring;
pub mod seats;
pub mod start;
pub mod timers;
