//! Where settings come from: a file, the environment, flags. Read through one trait, so that every mistake a person
//! can make in them is a unit test.
//!
//! The later source wins: defaults, then the file, then `RUSHROOM_*`, then `--set`. A source speaks only in text: what
//! the text means is `keys`' business.

use std::collections::BTreeMap;

/// A place where settings are written down.
pub(crate) trait Source {
    /// What it is called in an error message.
    fn name(&self) -> String;
    /// The text set for a key, by its dotted name.
    fn get(&self, key: &str) -> Option<String>;
    /// Every key that it names, so that a misspelt one is found. The environment is shared with others: it names none.
    fn named(&self) -> Vec<String>;
}

/// A TOML file: tables nest, arrays of text become lines.
#[derive(Debug)]
pub(crate) struct TomlFile {
    name: String,
    values: BTreeMap<String, String>,
}

impl TomlFile {
    /// Reads `text`; `name` is for messages.
    pub(crate) fn parse(name: &str, text: &str) -> Result<TomlFile, String> {
        let table: toml::Table = text.parse().map_err(|e| format!("{name}: {e}"))?;
        let mut values = BTreeMap::new();
        flatten("", &toml::Value::Table(table), &mut values);
        Ok(TomlFile {
            name: name.to_string(),
            values,
        })
    }
}

fn flatten(path: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                let dotted = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&dotted, inner, out);
            }
        }
        toml::Value::String(text) => {
            out.insert(path.to_string(), text.clone());
        }
        toml::Value::Array(items) => {
            let lines = items
                .iter()
                .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_string));
            out.insert(path.to_string(), lines.collect::<Vec<_>>().join("\n"));
        }
        other => {
            out.insert(path.to_string(), other.to_string());
        }
    }
}

impl Source for TomlFile {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }
    fn named(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }
}

/// The environment: `node.id` is `RUSHROOM_NODE_ID`.
pub(crate) struct Environment;

/// The variable that sets a key.
pub(crate) fn variable(key: &str) -> String {
    format!("RUSHROOM_{}", key.replace('.', "_").to_uppercase())
}

impl Source for Environment {
    fn name(&self) -> String {
        "environment".into()
    }
    fn get(&self, key: &str) -> Option<String> {
        std::env::var(variable(key)).ok()
    }
    fn named(&self) -> Vec<String> {
        Vec::new()
    }
}

/// `--set key=value` flags, and the fakes of tests.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    name: &'static str,
    values: BTreeMap<String, String>,
}

impl Pairs {
    /// From `key=value` texts.
    pub(crate) fn parse(name: &'static str, pairs: &[String]) -> Result<Pairs, String> {
        let mut values = BTreeMap::new();
        for pair in pairs {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{name}: `{pair}` is not key=value"))?;
            values.insert(key.trim().to_string(), value.trim().to_string());
        }
        Ok(Pairs { name, values })
    }
}

impl Source for Pairs {
    fn name(&self) -> String {
        self.name.into()
    }
    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }
    fn named(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }
}
