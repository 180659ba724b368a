//! `rookery module …`: check, sign, publish, list and remove match logic, and make keys to sign it with.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operator::{OpsOptions, pretty, segment};
use super::say;
use super::table::table;
use crate::modules::signature::SigningKey;
use crate::ops::view::{ModuleView, ModulesView, Published};
use crate::wasm::module::digest_of;
use crate::wasm::{Engine, EngineConfig, Severity};

/// The widest list of nodes in a line about a module.
const NODES_LEN_MAX: usize = 32;

/// Check, sign, publish, list and remove match logic.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module publish duel.wasm")]
pub(super) struct Module {
    #[command(subcommand)]
    command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
enum ModuleCommand {
    Check(Check),
    Componentize(Componentize),
    Publish(Publish),
    List(List),
    Remove(Remove),
    Keygen(Keygen),
    Sign(Sign),
}

impl Module {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            ModuleCommand::Check(command) => command.run(),
            ModuleCommand::Componentize(command) => command.run(),
            ModuleCommand::Publish(command) => command.run(),
            ModuleCommand::List(command) => command.run(),
            ModuleCommand::Remove(command) => command.run(),
            ModuleCommand::Keygen(command) => command.run(),
            ModuleCommand::Sign(command) => command.run(),
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

/// Make the component of a core module, as a C or AssemblyScript compiler leaves it. For Rust there is `rookery build`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module componentize core.wasm --out duel.wasm")]
struct Componentize {
    /// The core module; its imports and exports have the names of match.wit's canonical ABI.
    file: PathBuf,
    /// Where the component goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Componentize {
    fn run(self) -> anyhow::Result<ExitCode> {
        let built = super::build::wrap(&self.file, &self.out)?;
        let size_kib = built.size_bytes.div_ceil(1024);
        say(format!("{} ({size_kib} KiB)", built.component.display()));
        Ok(ExitCode::SUCCESS)
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
    /// Sign it with this private key, as `rookery module keygen` writes it. Needed where the cluster sets `modules.keys`.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    key: Option<PathBuf>,
    /// The signature that `rookery module sign` printed, where the key is not on this machine.
    #[arg(long, value_name = "BASE64")]
    signature: Option<String>,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Publish {
    fn run(self) -> anyhow::Result<ExitCode> {
        let component = read(&self.file)?;
        let signature = match (&self.key, self.signature) {
            (Some(key), _) => Some(signing_key(key)?.sign(&digest_of(&component)).to_string()),
            (None, signature) => signature,
        };
        let published: Published = self.ops.client()?.publish(&component, signature.as_deref())?;
        if self.ops.json {
            say(pretty(&published));
        } else {
            say(format!("{} {} {}", published.name, published.version, published.digest));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// List the published modules: versions, who signed them, where they are compiled and how many matches run.
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
                kib(module.bytes),
                module.matches.to_string(),
                nodes(&module.compiled),
                signed(module),
                module.digest.to_string(),
            ]
        };
        let rows: Vec<_> = view.modules.iter().map(row).collect();
        let header = [
            "MODULE",
            "VERSION",
            "",
            "DURABILITY",
            "KIB",
            "MATCHES",
            "COMPILED ON",
            "SIGNED BY",
            "DIGEST",
        ];
        say(table(&header, &rows));
        for module in &view.modules {
            if let Some(why) = &module.refused {
                say(format!("{}@{}: {why}", module.name, module.digest));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// By whom it is signed, as far as the node that answered can tell.
fn signed(module: &ModuleView) -> String {
    match (&module.refused, &module.signed_by) {
        (Some(_), _) => "REFUSED".into(),
        (None, Some(key)) => key.clone(),
        (None, None) if module.signatures > 0 => "not checked".into(),
        (None, None) => "-".into(),
    }
}

fn kib(bytes: u64) -> String {
    bytes.div_ceil(1 << 10).to_string()
}

/// Names as far as they fit beside the digest; `--json` has them all.
fn nodes(names: &[String]) -> String {
    let all = names.join(" ");
    match names.len() {
        0 => "-".into(),
        _ if all.len() <= NODES_LEN_MAX => all,
        count => format!("{count} nodes"),
    }
}

/// Remove a version that no live match uses. What is over stays findable, and can no longer be replayed.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rookery module remove duel@8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
)]
struct Remove {
    /// The version as NAME@DIGEST; `rookery module list` prints both.
    module: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Remove {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/modules/{}", segment(&self.module));
        let removed: Value = self.ops.client()?.delete(&path)?;
        if self.ops.json {
            say(pretty(&removed));
        } else {
            say(format!("{} is removed", self.module));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Make a key to sign modules with: the private half goes into a file, the public half is printed for `modules.keys`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module keygen --out module.key
  ROOKERY_MODULES__KEYS=\"$(rookery module keygen --out module.key)\" rookery node")]
struct Keygen {
    /// Where the private half goes. A file that is there is not written over.
    #[arg(long, value_name = "FILE", default_value = "module.key")]
    out: PathBuf,
}

impl Keygen {
    fn run(self) -> anyhow::Result<ExitCode> {
        let pem = SigningKey::generate();
        let mut options = fs::OpenOptions::new();
        // Readable by its owner only, from its first moment.
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options
            .open(&self.out)
            .with_context(|| format!("cannot write a new file {}", self.out.display()))?;
        file.write_all(pem.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        say(signing_key(&self.out)?.public());
        Ok(ExitCode::SUCCESS)
    }
}

/// Sign a component, and print the signature. Needs no node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery module sign duel.wasm --key module.key")]
struct Sign {
    /// The component, as `rookery build` makes it.
    file: PathBuf,
    /// The private key, as `rookery module keygen` or `openssl genpkey -algorithm ed25519` writes it.
    #[arg(long, value_name = "FILE", default_value = "module.key")]
    key: PathBuf,
}

impl Sign {
    fn run(self) -> anyhow::Result<ExitCode> {
        let key = signing_key(&self.key)?;
        say(key.sign(&digest_of(&read(&self.file)?)));
        Ok(ExitCode::SUCCESS)
    }
}

fn signing_key(file: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::from_pem(&read(file)?).with_context(|| format!("{} cannot be used", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::signature::{Keys, PublicKey, Signature};

    #[test]
    fn nodes_are_named_while_there_are_few() {
        let names = |count: usize| (1..=count).map(|no| format!("rook-{no}")).collect::<Vec<_>>();
        for (count, expected) in [(0, "-"), (2, "rook-1 rook-2"), (9, "9 nodes")] {
            assert_eq!(nodes(&names(count)), expected);
        }
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("module.key");
        Keygen { out: out.clone() }.run().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&out).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let before = read(&out).unwrap();
        assert!(Keygen { out: out.clone() }.run().is_err());
        assert_eq!(read(&out).unwrap(), before);
        let key = signing_key(&out).unwrap();
        let component = digest_of(b"a component");
        let (printed, signed) = (key.public().to_string(), key.sign(&component).to_string());
        let keys = Keys::new(vec![printed.parse::<PublicKey>().unwrap()]);
        assert!(keys.check(&component, &[signed.parse::<Signature>().unwrap()]).is_ok());
        fs::write(&out, "no key").unwrap();
        let error = signing_key(&out).err().unwrap();
        assert!(format!("{error:#}").contains("rookery module keygen"), "{error:#}");
    }
}
