//! What the server promises, checked on real processes: each module is one promise.

mod cluster {
    mod basics;
}
