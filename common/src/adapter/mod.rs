//! The adapter: ordered tensor layout, values, deltas, and PEFT files.
