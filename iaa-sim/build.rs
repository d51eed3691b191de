//! Gives the library the name by which libqpl opens it, and links it so that it stays loaded: its
//! threads could not go on without its code.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libaccel-config.so.1");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
