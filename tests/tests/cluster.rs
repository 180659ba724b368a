//! What the server promises, checked on real processes: each module is one promise.

mod cluster {
    mod bad_input;
    mod basics;
    mod call;
    mod chat;
    mod content;
    mod delivery;
    mod demo;
    mod deploy;
    mod discovery;
    mod drain;
    mod hostile;
    mod intruders;
    mod leaving;
    mod lives;
    mod matchmaking;
    mod metrics;
    mod operators;
    mod partition;
    mod presence;
    mod publishing;
    mod recordings;
    mod records;
    mod registry;
    mod rotation;
    mod saying;
    mod seats;
    mod sockets;
    mod starting;
    mod storage;
    mod stored;
    mod traces;
    mod transfer;
    mod upgrading;
    mod views;
    mod village;
    mod wire;
    mod worlds;
    mod zones;
}
