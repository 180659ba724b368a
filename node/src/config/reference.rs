//! Every key with its default and what it does, as `docs/configuration.md` and `rookery config reference` show it.

use super::Config;

const HEAD: &str = "\
# Configuration

A TOML file (`rookery node --config FILE`), then the environment, then flags; later ones win. No key is needed to run one node.
The variable of a key is its path in capitals, with a double underscore for each dot: `cluster.seeds` is
`ROOKERY_CLUSTER__SEEDS=a:7701,b:7701`. An empty variable counts as not set. An unknown key, in file or environment, is an error.

`rookery config check` reports all faults at once; `rookery config print` shows the effective configuration. Keys that this
version accepts and does not act on yet are named by both, and in the node's log.

This page is what `rookery config reference` prints.
";

impl Config {
    /// The page, as Markdown.
    pub fn reference_page() -> String {
        let mut page = HEAD.to_owned();
        let mut current = "";
        let keys = Self::reference();
        for key in &keys {
            let section = key.path.split('.').next().unwrap_or_default();
            if section != current {
                page += &format!("\n## {section}\n\n| key | default | what it does |\n| --- | --- | --- |\n");
                current = section;
            }
            let default = key
                .default
                .as_ref()
                .map_or_else(|| "none".into(), |default| format!("`{default}`"));
            let doc = key.doc.split_whitespace().collect::<Vec<_>>().join(" ");
            page += &format!("| `{}` | {default} | {} |\n", key.path, doc.replace('|', "\\|"));
        }
        page
    }
}
