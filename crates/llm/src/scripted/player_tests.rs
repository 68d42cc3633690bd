//! Cases of the choice of steps.
