//! Compiles every `.proto` under `rushroom/` without a system `protoc` (protox is the compiler, in Rust).

use std::path::{Path, PathBuf};

fn protos(dir: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            out.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    protos(Path::new("rushroom"), &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed=rushroom");
    let set = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
