//! What the mesh promises, checked on real processes under real faults: each module is one promise.

mod mesh {
    mod churn;
    mod means;
    mod partitions;
    mod promises;
    mod restarts;
    mod scale;
    mod weather;
    mod words;
}
