//! Whoever else connects: a migration goes on, whatever they say and whenever they come.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod crowd;
mod honest;
mod kinds;
mod play;
mod rivals;
mod table;

/// The bundled codecs, for builders that a test keeps.
fn registry() -> &'static multifd::core::Registry {
    static REGISTRY: std::sync::LazyLock<multifd::core::Registry> =
        std::sync::LazyLock::new(common::registry);
    &REGISTRY
}
