//! Switches `src/core/sync.rs` over to loom's types, for this package alone.

fn main() {
    println!("cargo:rustc-cfg=loom");
    println!("cargo:rerun-if-changed=build.rs");
}
