//! The dataplane against the running kernel: each test makes its own network namespace to be the node, and
//! a private mount namespace for its namespace files and its bpf filesystem. Needs root.

mod attach;
mod discover;
mod least_privilege;
mod load;
mod node;
mod update;
