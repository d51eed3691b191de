//! What a program brings: connections, listeners, streams and threads of its own; and how long each
//! may take.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/toy.rs"]
mod toy;

mod attempts;
mod cancel;
mod given;
mod limits;
mod listening;
mod syncs;
mod threads;

/// The bundled codecs, for builders that a test keeps.
fn registry() -> &'static multifd::core::Registry {
    static REGISTRY: std::sync::LazyLock<multifd::core::Registry> =
        std::sync::LazyLock::new(common::registry);
    &REGISTRY
}
