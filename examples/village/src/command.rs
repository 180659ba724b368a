//! What a player may type, read from one line. It knows words and no world: whether there is such a person, thing or way is
//! for `lib.rs` to say.

/// The longest thing that can be said, in characters; the rest is cut off.
pub(crate) const TEXT_MAX: usize = 300;

/// One line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Look(Option<String>),
    Go(String),
    Say(String),
    Tell { to: String, text: String },
    Shout(String),
    Who,
    Get(String),
    Drop(String),
    Inventory,
    Help,
}

/// Why a line means nothing, in words for whoever typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unclear(pub(crate) String);

pub(crate) const HELP: &str = "look [thing], go <way> (or just the way), say <text>, tell <who> <text>, shout <text>, who, get <thing>, \
     drop <thing>, inventory, help";

impl Command {
    pub(crate) fn parse(line: &str) -> Result<Self, Unclear> {
        let line = line.trim();
        if let Some(text) = line.strip_prefix(['\'', '"']) {
            return Ok(Self::Say(text_of(text, "Say what?")?));
        }
        let (verb, rest) = cut(line);
        let command = match verb.to_ascii_lowercase().as_str() {
            "" => return Err(Unclear("Type something, `help` for instance.".into())),
            "look" | "l" | "examine" => Self::Look(Some(word(rest)).filter(|thing| !thing.is_empty())),
            "go" | "walk" => Self::Go(direction(&needed(rest, "Go where?")?)),
            "say" => Self::Say(text_of(rest, "Say what?")?),
            "tell" | "whisper" => {
                let (to, text) = cut(rest);
                Self::Tell {
                    to: needed(to, "Tell whom?")?,
                    text: text_of(text, "Tell them what?")?,
                }
            }
            "shout" => Self::Shout(text_of(rest, "Shout what?")?),
            "who" => Self::Who,
            "get" | "take" => Self::Get(needed(rest, "Get what?")?),
            "drop" => Self::Drop(needed(rest, "Drop what?")?),
            "inventory" | "inv" | "i" => Self::Inventory,
            "help" | "?" => Self::Help,
            way @ ("north" | "east" | "south" | "west" | "in" | "out" | "n" | "e" | "s" | "w") if rest.is_empty() => {
                Self::Go(direction(way))
            }
            other => {
                return Err(Unclear(format!(
                    "Nobody here knows how to `{}`. Try `help`.",
                    short(other)
                )));
            }
        };
        Ok(command)
    }
}

/// The first word, and what follows it.
fn cut(line: &str) -> (&str, &str) {
    match line.split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim()),
        None => (line, ""),
    }
}

/// A thing by its last word: `the brass lantern` is `lantern`.
fn word(text: &str) -> String {
    short(text.split_whitespace().next_back().unwrap_or_default()).to_ascii_lowercase()
}

fn needed(text: &str, otherwise: &str) -> Result<String, Unclear> {
    let word = word(text);
    if word.is_empty() {
        return Err(Unclear(otherwise.into()));
    }
    Ok(word)
}

fn text_of(text: &str, otherwise: &str) -> Result<String, Unclear> {
    let text = short(text.trim());
    if text.is_empty() {
        return Err(Unclear(otherwise.into()));
    }
    Ok(text)
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

fn direction(word: &str) -> String {
    let whole = match word {
        "n" => "north",
        "e" => "east",
        "s" => "south",
        "w" => "west",
        other => other,
    };
    whole.to_owned()
}
