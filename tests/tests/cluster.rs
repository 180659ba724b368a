//! What the server promises, checked on real processes: each module is one promise.

mod cluster {
    mod bad_input;
    mod basics;
    mod delivery;
    mod hostile;
    mod metrics;
    mod operators;
    mod sockets;
    mod wire;
}
