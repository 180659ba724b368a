//! What a modder depends on.
