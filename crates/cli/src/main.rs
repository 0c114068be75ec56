//! The program `arcane`.

fn main() {}
