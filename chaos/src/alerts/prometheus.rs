//! A real Prometheus with the rules of the repository, in which time is made shorter.
//!
//! ```text
//!   docs/ops/alerts.yml --`for` and ranges divided--> DIR/alerts.yml --> prometheus (own process, loopback, free port)
//!   targets.json <-- whom it scrapes, once a second; GET /api/v1/alerts --> what fires
//! ```
//!
//! Only durations are changed: an expression, its threshold and its labels are what operators load. A range keeps at least
//! five scrapes, and no `for` takes longer than ten seconds.
//!
//! Deliberately absent: Alertmanager. Who is told, and how, is not ours.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Least and longest of a range, ms.
const RANGE: (u64, u64) = (5_000, 60_000);
/// Least and longest of a `for`, ms.
const FOR: (u64, u64) = (1_000, 10_000);
/// Longest wait for its start.
const START_MAX: Duration = Duration::from_secs(30);

/// The process; it ends with us.
pub(super) struct Prometheus {
    child: Child,
    url: String,
    targets: PathBuf,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
    state: String,
}

impl Prometheus {
    /// Starts it on `port`.
    pub(super) async fn start(rules: &Path, dir: &Path, port: u16, shorter: u64) -> Result<Prometheus> {
        std::fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let text = std::fs::read_to_string(rules).with_context(|| rules.display().to_string())?;
        std::fs::write(dir.join("alerts.yml"), scale(&text, shorter))?;
        let targets = dir.join("targets.json");
        std::fs::write(&targets, "[]")?;
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}}\nrule_files: [alerts.yml]\n\
             scrape_configs:\n  - job_name: rushroom\n    file_sd_configs:\n      - files: ['{}']\n        refresh_interval: 1s\n",
            targets.display()
        );
        std::fs::write(dir.join("prometheus.yml"), config)?;
        let log = std::fs::File::create(dir.join("prometheus.log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting prometheus (Debian's package has it)")?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let mut this = Prometheus {
            child,
            url: format!("http://127.0.0.1:{port}"),
            targets,
            http,
        };
        let until = Instant::now() + START_MAX;
        while !this.is_ready().await {
            ensure!(
                this.child.try_wait()?.is_none(),
                "prometheus ended: see {}",
                dir.join("prometheus.log").display()
            );
            ensure!(Instant::now() < until, "prometheus isn't ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(this)
    }

    async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/-/ready", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// From now on it scrapes these.
    pub(super) fn scrape(&self, targets: &[String]) -> Result<()> {
        let hosts: Vec<&str> = targets.iter().map(|t| t.trim_start_matches("http://")).collect();
        let next = self.targets.with_extension("tmp");
        std::fs::write(&next, serde_json::json!([{ "targets": hosts }]).to_string())?;
        std::fs::rename(&next, &self.targets)?;
        Ok(())
    }

    /// What fires, with what somebody would read.
    pub(super) async fn firing(&self) -> Result<Vec<(String, String)>> {
        let answer = self.http.get(format!("{}/api/v1/alerts", self.url)).send().await?;
        let answer: Answer = serde_json::from_str(&answer.text().await?)?;
        let firing = answer.data.alerts.into_iter().filter(|alert| alert.state == "firing");
        let word = |map: &std::collections::BTreeMap<String, String>, key| map.get(key).cloned().unwrap_or_default();
        Ok(firing
            .map(|a| (word(&a.labels, "alertname"), word(&a.annotations, "summary")))
            .collect())
    }

    /// Whether it has looked at so many nodes twice. What rises before it has seen where it began never rose.
    pub(super) async fn knows(&self, nodes: usize) -> Result<bool> {
        // count(count_over_time(up[10s]) >= 2), as a URL has it.
        let query = "count%28count_over_time%28up%5B10s%5D%29%3E%3D2%29";
        let answer = self.http.get(format!("{}/api/v1/query?query={query}", self.url));
        let answer: serde_json::Value = serde_json::from_str(&answer.send().await?.text().await?)?;
        let known = answer["data"]["result"][0]["value"][1].as_str();
        Ok(known.and_then(|known| known.parse().ok()) == Some(nodes))
    }

    /// Whether this one fires now.
    pub(super) async fn is_firing(&self, alert: &str) -> Result<bool> {
        Ok(self.firing().await?.iter().any(|(name, _)| name == alert))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of all alerts in a file of rules.
pub(super) fn names(rules: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(rules)?;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert:"))
        .map(|name| name.trim().to_owned())
        .collect();
    if names.is_empty() {
        bail!("{}: no alerts", rules.display());
    }
    Ok(names)
}

/// The rules with every `for` and every range divided.
fn scale(text: &str, shorter: u64) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match line.trim().strip_prefix("for:").and_then(|d| millis(d.trim())) {
            Some(ms) => out.push_str(&format!("{indent}for: {}ms", (ms / shorter).clamp(FOR.0, FOR.1))),
            None => out.push_str(&ranges(line, shorter)),
        }
        out.push('\n');
    }
    out
}

fn ranges(line: &str, shorter: u64) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        out.push('[');
        match after.split_once(']') {
            Some((inside, behind)) => {
                match millis(inside) {
                    Some(ms) => out.push_str(&format!("{}ms", (ms / shorter).clamp(RANGE.0, RANGE.1))),
                    None => out.push_str(inside),
                }
                out.push(']');
                rest = behind;
            }
            None => rest = after,
        }
    }
    out + rest
}

/// One number and one unit, as the rules write durations.
fn millis(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(number.parse::<u64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_become_shorter() {
        let table = [
            ("        for: 5m", "        for: 5000ms"),
            ("        for: 1d", "        for: 10000ms"),
            ("        for: 15s", "        for: 1000ms"),
            (
                "  expr: sum(rate(x_total{a=~\"b|c\"}[5m])) > 0.01",
                "  expr: sum(rate(x_total{a=~\"b|c\"}[5000ms])) > 0.01",
            ),
            (
                "  expr: rate(x[1h]) / rate(y[10m])",
                "  expr: rate(x[60000ms]) / rate(y[10000ms])",
            ),
            ("  runbook_url: a[b] for: c", "  runbook_url: a[b] for: c"),
        ];
        for (rule, expected) in table {
            assert_eq!(scale(rule, 60).trim_end_matches('\n'), expected);
        }
    }
}
