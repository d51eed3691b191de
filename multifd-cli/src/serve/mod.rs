//! Commands that serve: migrations one after another and at once, in one process.
//!
//! A [`Service`](service::Service) takes them, each of which is a [`Task`](task::Task); whoever watches it reads its
//! [`Board`](watch::board::Board). systemd passes sockets on ([`activation`]) and is told how it is ([`notify`]).

mod activation;
pub(crate) mod guard;
mod memory;
mod notify;
pub(crate) mod service;
pub(crate) mod task;
mod watch;
