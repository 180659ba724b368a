//! Names and matches are found from every node, and never made twice.
