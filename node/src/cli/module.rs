//! `rookery module …`: check, publish and list match logic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::operator::{OpsOptions, pretty};
use super::say;
use super::table::table;
use crate::ops::view::{ModuleView, ModulesView, Published};
use crate::wasm::{Engine, EngineConfig, Severity};

/// Check, publish and list match logic.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module publish duel.wasm")]
pub(super) struct Module {
    #[command(subcommand)]
    command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
enum ModuleCommand {
    Check(Check),
    Publish(Publish),
    List(List),
}

impl Module {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            ModuleCommand::Check(command) => command.run(),
            ModuleCommand::Publish(command) => command.run(),
            ModuleCommand::List(command) => command.run(),
        }
    }
}

/// Check a component: what it imports and says of itself, and a short match played with it. Needs no node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module check duel.wasm")]
struct Check {
    /// The component, as `rookery build` makes it.
    file: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    fn run(self) -> anyhow::Result<ExitCode> {
        let report = Engine::new(EngineConfig::default())?.check(&read(&self.file)?);
        if self.json {
            let findings = report.findings.iter().map(|finding| {
                let severity = match finding.severity {
                    Severity::Note => "note",
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                };
                json!({"severity": severity, "text": finding.text})
            });
            let findings: Vec<_> = findings.collect();
            let (name, version) = report
                .manifest
                .as_ref()
                .map(|manifest| (&manifest.name, &manifest.version))
                .unzip();
            let ok = report.is_ok();
            say(pretty(&json!({
                "ok": ok, "name": name, "version": version, "digest": report.digest, "findings": findings,
            })));
        } else {
            say(&report);
        }
        Ok(if report.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Publish a component to the cluster; from then on every node can run it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module publish duel.wasm --ops http://127.0.0.1:7702")]
struct Publish {
    /// The component, as `rookery build` makes it.
    file: PathBuf,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Publish {
    fn run(self) -> anyhow::Result<ExitCode> {
        let published: Published = self.ops.client()?.put("/v1/modules", &read(&self.file)?)?;
        if self.ops.json {
            say(pretty(&published));
        } else {
            say(format!("{} {} {}", published.name, published.version, published.digest));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// List the published modules and their digests.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module list")]
struct List {
    #[command(flatten)]
    ops: OpsOptions,
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let view: ModulesView = self.ops.client()?.get("/v1/modules")?;
        if self.ops.json {
            say(pretty(&view));
            return Ok(ExitCode::SUCCESS);
        }
        let row = |module: &ModuleView| {
            vec![
                module.name.clone(),
                module.version.clone(),
                if module.newest { "newest".into() } else { String::new() },
                module.durability.clone(),
                module.digest.to_string(),
            ]
        };
        let rows: Vec<_> = view.modules.iter().map(row).collect();
        say(table(&["MODULE", "VERSION", "", "DURABILITY", "DIGEST"], &rows));
        Ok(ExitCode::SUCCESS)
    }
}
