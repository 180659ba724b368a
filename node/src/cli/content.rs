//! `rookery content …`: shared content of the cluster, read and written through any node.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::operator::{OpsClient, OpsOptions, pretty, segment};
use super::say;
use super::table::table;
use crate::ops::view::{ContentItem, ContentPage, ContentSummary, ContentWritten};

/// Read and write shared content: items, skills, texts that every node has.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery content put items sword sword.json")]
pub(super) struct Content {
    #[command(subcommand)]
    command: ContentCommand,
}

#[derive(Debug, Subcommand)]
enum ContentCommand {
    List(List),
    Get(Get),
    Put(Put),
    Delete(Delete),
}

impl Content {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            ContentCommand::List(command) => command.run(),
            ContentCommand::Get(command) => command.run(),
            ContentCommand::Put(command) => command.run(),
            ContentCommand::Delete(command) => command.run(),
        }
    }
}

/// List the collections, or the values of one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery content list items --prefix sword")]
struct List {
    /// The collection; all of them when it is not given.
    collection: Option<String>,
    /// Only keys that begin so.
    #[arg(long, default_value = "")]
    prefix: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.ops.client()?;
        let Some(collection) = &self.collection else {
            let summary: ContentSummary = client.get("/v1/content")?;
            if self.ops.json {
                say(pretty(&summary));
                return Ok(ExitCode::SUCCESS);
            }
            let row = |of: &crate::ops::view::ContentCollection| {
                vec![of.collection.clone(), of.values.to_string(), of.bytes.to_string()]
            };
            let rows: Vec<_> = summary.collections.iter().map(row).collect();
            say(table(&["COLLECTION", "VALUES", "BYTES"], &rows));
            return Ok(ExitCode::SUCCESS);
        };
        let page = self.fetch(&client, collection)?;
        if self.ops.json {
            say(pretty(&page));
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = page
            .values
            .iter()
            .map(|entry| {
                vec![
                    entry.key.clone(),
                    entry.version.to_string(),
                    entry.bytes.to_string(),
                    entry.content_type.clone(),
                ]
            })
            .collect();
        say(table(&["KEY", "VERSION", "BYTES", "TYPE"], &rows));
        Ok(ExitCode::SUCCESS)
    }

    /// All pages.
    fn fetch(&self, client: &OpsClient, collection: &str) -> anyhow::Result<ContentPage> {
        let mut all = ContentPage {
            collection: collection.into(),
            ..ContentPage::default()
        };
        let path = format!(
            "/v1/content/{}?limit=1000&prefix={}",
            segment(collection),
            segment(&self.prefix)
        );
        let mut cursor = String::new();
        loop {
            let page: ContentPage = client.get(&format!("{path}{cursor}"))?;
            all.values.extend(page.values);
            match page.cursor {
                Some(next) => cursor = format!("&cursor={}", segment(&next)),
                None => return Ok(all),
            }
        }
    }
}

/// Print one value.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery content get items sword")]
struct Get {
    collection: String,
    key: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Get {
    fn run(self) -> anyhow::Result<ExitCode> {
        let item: ContentItem = self.ops.client()?.get(&path(&self.collection, &self.key, None))?;
        if self.ops.json {
            say(pretty(&item));
            return Ok(ExitCode::SUCCESS);
        }
        match (item.encoding.as_str(), &item.value) {
            ("base64", serde_json::Value::String(text)) => {
                use base64::Engine;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                std::io::stdout()
                    .lock()
                    .write_all(&bytes.context("the node's base64 is none")?)?;
            }
            (_, serde_json::Value::String(text)) if item.encoding == "text" => say(text),
            (_, value) => say(pretty(value)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Write one value, from a file or from stdin; every node has it a moment later.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  echo '{\"damage\": 3}' | rookery content put items sword -")]
struct Put {
    collection: String,
    key: String,
    /// The file; `-` is stdin.
    file: PathBuf,
    /// Only if the value has this version; 0: only if there is none.
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Put {
    fn run(self) -> anyhow::Result<ExitCode> {
        let mut value = Vec::new();
        if self.file.as_os_str() == "-" {
            std::io::stdin()
                .lock()
                .read_to_end(&mut value)
                .context("cannot read stdin")?;
        } else {
            value = fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        }
        let path = path(&self.collection, &self.key, self.version);
        let written: ContentWritten = self.ops.client()?.put_bytes(&path, &value)?;
        tell(&self.ops, &written);
        Ok(ExitCode::SUCCESS)
    }
}

/// Delete one value.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery content delete items sword")]
struct Delete {
    collection: String,
    key: String,
    /// Only if the value has this version.
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Delete {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = path(&self.collection, &self.key, self.version);
        let written: ContentWritten = self.ops.client()?.delete(&path)?;
        tell(&self.ops, &written);
        Ok(ExitCode::SUCCESS)
    }
}

fn path(collection: &str, key: &str, version: Option<u64>) -> String {
    let version = version.map(|version| format!("?version={version}")).unwrap_or_default();
    format!("/v1/content/{}/{}{version}", segment(collection), segment(key))
}

fn tell(ops: &OpsOptions, written: &ContentWritten) {
    if ops.json {
        say(pretty(written));
    } else {
        say(format!(
            "{}/{} version {}",
            written.collection, written.key, written.version
        ));
    }
}
