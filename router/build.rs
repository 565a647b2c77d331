//! Makes sure that there is a page to embed: if `web/dist` was not built, a placeholder that says how to build it. So
//! `cargo build` needs no Node.

use std::{fs, path::Path};

const PLACEHOLDER: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Rushroom</title>
<h1>Rushroom</h1>
<p>The API is up. The web page was not built: run <code>npm ci &amp;&amp; npm run build</code> in <code>router/web</code>,
then build again.</p>
";

fn main() -> std::io::Result<()> {
    let dist = Path::new("web/dist");
    // Also when the folder comes, goes or changes.
    println!("cargo:rerun-if-changed=web/dist");
    println!("cargo:rerun-if-changed=build.rs");
    if !dist.join("index.html").exists() {
        fs::create_dir_all(dist)?;
        fs::write(dist.join("index.html"), PLACEHOLDER)?;
    }
    Ok(())
}
