//! Reverse-mode differentiation of MIL, as a rewrite from MIL to MIL.
