//! Where settings come from: a file, the environment, flags. Read through one trait, so that every mistake a person
//! can make in them is a unit test.
//!
//! The later source wins: defaults, then the file, then `RUSHROOM_*`, then `--set`. A source gives text and where exactly
//! it stands (file and line, variable, flag); what the text means is `keys`' business. Only a TOML file says of what kind
//! a value is, and is held to it: `zone = 3` is no text, and `"8080"` is no number.

use super::value::{Shape, Value};
use super::{Fault, KEYS};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// One setting as someone wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The value.
    pub(super) text: String,
    /// Where it stands.
    pub(super) place: String,
    /// Of what kind it was written as, where the source tells.
    shape: Option<Shape>,
}

impl Setting {
    /// Text of any kind.
    fn plain(text: &str, place: String) -> Setting {
        Setting {
            text: text.to_string(),
            place,
            shape: None,
        }
    }

    /// What it means for a key of this type.
    pub(super) fn read<T: Value>(&self) -> Result<T, String> {
        match self.shape {
            Some(shape) if shape != T::SHAPE => Err(format!("must be {}, but is {}", T::SHAPE.words(), shape.words())),
            _ => T::parse(&self.text),
        }
    }
}

/// A place where settings are written down.
pub(crate) trait Source {
    /// What is set for a key, by its dotted name.
    fn get(&self, key: &str) -> Option<Setting>;
    /// What is wrong with the source itself, and every name in it that no key has.
    fn faults(&self) -> Vec<Fault>;
}

/// What is wrong about a name that no key has, and the key that was probably meant.
fn unknown(key: &str, place: &str) -> Fault {
    let near = KEYS.iter().map(|k| (distance(k.name, key), k.name)).min();
    let hint = near
        .filter(|(far, _)| *far <= TYPOS)
        .map(|(_, name)| format!("; did you mean {name}?"));
    Fault {
        key: key.to_string(),
        place: place.to_string(),
        what: format!("there is no such setting{}", hint.unwrap_or_default()),
    }
}

fn is_key(name: &str) -> bool {
    KEYS.iter().any(|k| k.name == name)
}

/// A name this near to another is a slip of the finger.
const TYPOS: usize = 2;

/// Letters to add, drop or change to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A TOML file: tables nest, arrays of text become lines.
#[derive(Debug)]
pub(crate) struct TomlFile {
    values: BTreeMap<String, Setting>,
    faults: Vec<Fault>,
}

impl TomlFile {
    /// Reads `text`; `name` is for messages. A file that can't be read as TOML sets nothing and has a fault.
    pub(crate) fn parse(name: &str, text: &str) -> TomlFile {
        let mut file = TomlFile {
            values: BTreeMap::new(),
            faults: Vec::new(),
        };
        let lines = Lines { name, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = lines.place(error.span().map_or(0, |s| s.start));
            file.faults.push(Fault {
                key: "TOML".into(),
                place,
                what: error.message().to_string(),
            });
        }
        if file.faults.is_empty() {
            file.flatten("", table.get_ref(), &lines);
        }
        file
    }

    fn flatten(&mut self, path: &str, table: &DeTable<'_>, lines: &Lines<'_>) {
        for (key, value) in table {
            let name = key.get_ref();
            let dotted = if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            };
            let place = lines.place(key.span().start);
            let (shape, text) = match value.get_ref() {
                DeValue::Table(inner) => {
                    let section = format!("{dotted}.");
                    if inner.is_empty() && !KEYS.iter().any(|k| k.name.starts_with(&section)) {
                        self.faults.push(unknown(&dotted, &place));
                    }
                    self.flatten(&dotted, inner, lines);
                    continue;
                }
                DeValue::Array(items) => match items.iter().map(|i| i.get_ref().as_str()).collect::<Option<Vec<_>>>() {
                    Some(texts) => (Shape::List, texts.join("\n")),
                    None => (Shape::Other, String::new()),
                },
                DeValue::String(text) => (Shape::Text, text.to_string()),
                DeValue::Boolean(truth) => (Shape::Truth, truth.to_string()),
                DeValue::Integer(whole) => (Shape::Whole, decimal(whole.as_str(), whole.radix())),
                DeValue::Float(_) | DeValue::Datetime(_) => (Shape::Other, String::new()),
            };
            if !is_key(&dotted) {
                self.faults.push(unknown(&dotted, &place));
            }
            self.values.insert(
                dotted,
                Setting {
                    text,
                    place,
                    shape: Some(shape),
                },
            );
        }
    }
}

/// A TOML integer in decimal; what isn't one stays as it is, and is refused as such.
fn decimal(text: &str, radix: u32) -> String {
    i128::from_str_radix(text, radix).map_or_else(|_| text.to_string(), |n| n.to_string())
}

/// Names a place in a file.
struct Lines<'a> {
    name: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, at: usize) -> String {
        let before = self.text.as_bytes().iter().take(at);
        format!("{}:{}", self.name, 1 + before.filter(|b| **b == b'\n').count())
    }
}

impl Source for TomlFile {
    fn get(&self, key: &str) -> Option<Setting> {
        self.values.get(key).cloned()
    }
    fn faults(&self) -> Vec<Fault> {
        self.faults.clone()
    }
}

/// The environment: `node.id` is `RUSHROOM_NODE_ID`.
pub(crate) struct Environment(BTreeMap<String, String>);

/// The variable that sets a key.
pub(crate) fn variable(key: &str) -> String {
    format!("RUSHROOM_{}", key.replace('.', "_").to_uppercase())
}

impl Environment {
    /// This process's own.
    pub(crate) fn own() -> Environment {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        Environment::of(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Of these variables.
    pub(crate) fn of(vars: impl IntoIterator<Item = (String, String)>) -> Environment {
        Environment(
            vars.into_iter()
                .filter(|(name, _)| name.starts_with("RUSHROOM_"))
                .collect(),
        )
    }
}

impl Source for Environment {
    fn get(&self, key: &str) -> Option<Setting> {
        let name = variable(key);
        self.0.get(&name).map(|text| Setting::plain(text, name))
    }

    /// The prefix is shared with the tools around us (`RUSHROOM_BIN`, `RUSHROOM_NETNS`), so that a variable is one of ours
    /// when it names one of our sections, or is a slip of the finger away from one of our keys.
    fn faults(&self) -> Vec<Fault> {
        let known: Vec<String> = KEYS.iter().map(|k| variable(k.name)).collect();
        let section = |name: &str| {
            KEYS.iter().any(|k| {
                let section = k.name.split('.').next().unwrap_or_default();
                name.starts_with(&variable(&format!("{section}.")))
            })
        };
        let mut faults = Vec::new();
        for name in self.0.keys().filter(|name| !known.contains(name)) {
            let near = known
                .iter()
                .map(|k| (distance(k, name), k))
                .min()
                .filter(|(far, _)| *far <= TYPOS);
            if near.is_none() && !section(name) {
                continue;
            }
            let hint = near
                .map(|(_, key)| format!("; did you mean {key}?"))
                .unwrap_or_default();
            faults.push(Fault {
                key: name.clone(),
                place: "environment".into(),
                what: format!("there is no such setting{hint}"),
            });
        }
        faults
    }
}

/// `--set key=value` flags; the later of two wins.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Flags {
    /// From `key=value` texts.
    pub(crate) fn parse(pairs: &[String]) -> Flags {
        let mut flags = Flags::default();
        for pair in pairs {
            match pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) => {
                    if !is_key(key) {
                        flags.faults.push(unknown(key, "--set"));
                    }
                    flags.values.insert(key.to_string(), value.to_string());
                }
                None => flags.faults.push(Fault {
                    key: pair.clone(),
                    place: "--set".into(),
                    what: "is not key=value".into(),
                }),
            }
        }
        flags
    }
}

impl Source for Flags {
    fn get(&self, key: &str) -> Option<Setting> {
        self.values.get(key).map(|text| Setting::plain(text, "--set".into()))
    }
    fn faults(&self) -> Vec<Fault> {
        self.faults.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_far_apart_as_their_letters() {
        for (a, b, far) in [
            ("", "", 0),
            ("node.id", "node.id", 0),
            ("node.id", "noed.id", 2),
            ("a", "", 1),
            ("zone", "zon", 1),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (far, far), "{a} {b}");
        }
    }
}
