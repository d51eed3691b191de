//! Whoever else connects: a migration goes on, whatever they say and whenever they come.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "tls", feature = "token"))]
#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "the tests of TLS use all of it")]
mod authority;
#[cfg(feature = "token")]
#[path = "../common/hello.rs"]
mod hello;
#[cfg(all(feature = "tls", feature = "token"))]
#[path = "../tls/peer.rs"]
#[allow(dead_code, reason = "the tests of TLS use all of it")]
mod peer;

mod crowd;
#[cfg(all(feature = "tls", feature = "token"))]
mod guarded;
mod honest;
mod kinds;
mod memory;
mod play;
mod rivals;
mod table;

/// The bundled codecs, for builders that a test keeps.
fn registry() -> &'static multifd::core::Registry {
    static REGISTRY: std::sync::LazyLock<multifd::core::Registry> =
        std::sync::LazyLock::new(common::registry);
    &REGISTRY
}
