//! Private servers on free ports for the tests, the demo and the benches.
