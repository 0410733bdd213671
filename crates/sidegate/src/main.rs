//! The `sidegate` binary.
fn main() {}
