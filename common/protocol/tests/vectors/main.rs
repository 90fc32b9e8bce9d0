//! The vectors in `common/vectors`, made by an implementation of its own in Python, are
//! reproduced value by value.

mod given;
mod graph;
mod masking;
mod ml_kem;
mod plan;
mod primitives;
mod round;
