//! Measures the promises of speed beside their limits.
fn main() {}
