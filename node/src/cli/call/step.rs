//! A step of `rookery call` as it is written: whose it is, what is to be done, and what its placeholders stand for. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the frames of one session said last, by key.
pub(super) type Known = BTreeMap<String, Value>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Send this, and wait for its answer.
    Request(Value),
    /// Wait for a frame that contains this.
    Wait(String),
}

/// The step cannot be understood; nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadStep {
    #[error("`{0}` is no step; write `type key=value`, a JSON object with a `type`, or `wait:TEXT`")]
    Neither(String),
    #[error("`{step}` is for session {session}, but there are {sessions}; give each its --url")]
    NoSession {
        step: String,
        session: usize,
        sessions: usize,
    },
    #[error("`{0}` stands for something that no frame has said yet")]
    Unknown(String),
}

/// Reads a step, and whose it is, from 0.
pub(super) fn parse(text: &str, sessions: usize) -> Result<(usize, Step), BadStep> {
    let text = text.trim();
    let (number, rest) = match text.split_once(':') {
        Some((number, rest)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            (number.parse().unwrap_or(usize::MAX), rest)
        }
        _ => (1, text),
    };
    if number == 0 || number > sessions {
        return Err(BadStep::NoSession {
            step: text.to_owned(),
            session: number,
            sessions,
        });
    }
    let step = match rest.strip_prefix("wait:") {
        Some(wanted) => Step::Wait(wanted.to_owned()),
        None => match request(rest) {
            Some(request) => Step::Request(request),
            None => return Err(BadStep::Neither(text.to_owned())),
        },
    };
    Ok((number - 1, step))
}

/// A request as JSON, or as its type and `key=value` for each field. A value is JSON where it reads as JSON, and text otherwise.
fn request(text: &str) -> Option<Value> {
    if text.starts_with('{') {
        let request: Value = serde_json::from_str(text).ok()?;
        return request["type"].is_string().then_some(request);
    }
    let (kind, mut rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let is_type = kind.contains('.') && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_');
    if !is_type {
        return None;
    }
    let mut fields = serde_json::Map::from_iter([("type".to_owned(), kind.into())]);
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(fields.into());
        }
        let (key, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        fields.insert(key.to_owned(), value);
        rest = after;
    }
}

/// The value at the beginning, and what follows it.
fn value(text: &str) -> Option<(Value, &str)> {
    if text.starts_with(['"', '{', '[']) {
        let mut values = serde_json::Deserializer::from_str(text).into_iter();
        let value = values.next()?.ok()?;
        return Some((value, &text[values.byte_offset()..]));
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    Some((serde_json::from_str(word).unwrap_or_else(|_| word.into()), after))
}

/// Replaces `$key` and `$2.key` by what the sessions have heard.
pub(super) fn fill_in(value: &mut Value, session: usize, known: &[&Known]) -> Result<(), BadStep> {
    match value {
        Value::String(text) => {
            let Some(name) = text.strip_prefix('$') else {
                return Ok(());
            };
            let numbered = name.split_once('.').and_then(|(number, key)| {
                let number: usize = number.parse().ok()?;
                Some((number.checked_sub(1)?, key))
            });
            let (whose, key) = numbered.unwrap_or((session, name));
            let found = known.get(whose).and_then(|known| known.get(key));
            *value = found.cloned().ok_or_else(|| BadStep::Unknown(text.clone()))?;
            Ok(())
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| fill_in(value, session, known)),
        Value::Object(map) => map.values_mut().try_for_each(|value| fill_in(value, session, known)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_says_whose_it_is_and_what_it_wants() {
        let list = json!({ "type": "world.list" });
        assert_eq!(
            parse(r#"{"type":"world.list"}"#, 1),
            Ok((0, Step::Request(list.clone())))
        );
        assert_eq!(parse(r#" 2:{"type":"world.list"} "#, 2), Ok((1, Step::Request(list))));
        assert_eq!(
            parse("wait:Ana says: hi", 1),
            Ok((0, Step::Wait("Ana says: hi".into())))
        );
        assert_eq!(parse("3:wait:1:2", 3), Ok((2, Step::Wait("1:2".into()))));
    }

    #[test]
    fn a_step_that_means_nothing_is_refused_before_anything_is_sent() {
        for text in [
            "",
            "list",
            "[]",
            "{}",
            r#"{"type":7}"#,
            "waits:x",
            ":wait:x",
            "a.b c",
            r#"a.b c="d"#,
        ] {
            assert!(matches!(parse(text, 1), Err(BadStep::Neither(_))), "{text}");
        }
        for text in ["0:wait:x", "2:wait:x", "99999999999999999999999:wait:x"] {
            assert!(matches!(parse(text, 1), Err(BadStep::NoSession { .. })), "{text}");
        }
    }

    #[test]
    fn a_request_may_be_written_without_braces() {
        let written = r#"2:match.send match=$1.match n=1 data={"all": "good day"} note="two words" name=room:lobby"#;
        let wanted = json!({
            "type": "match.send", "match": "$1.match", "n": 1, "data": { "all": "good day" }, "note": "two words",
            "name": "room:lobby",
        });
        assert_eq!(parse(written, 2), Ok((1, Step::Request(wanted))));
        assert_eq!(
            parse("world.list", 1),
            Ok((0, Step::Request(json!({ "type": "world.list" }))))
        );
    }

    #[test]
    fn placeholders_stand_for_what_was_heard() {
        let own = Known::from([("match".into(), json!("m1")), ("n".into(), json!(7))]);
        let other = Known::from([("player".into(), json!("p2"))]);
        let mut request = json!({ "type": "x", "match": "$match", "n": "$n", "players": ["$2.player"], "text": "5 $" });
        fill_in(&mut request, 0, &[&own, &other]).unwrap();
        assert_eq!(
            request,
            json!({ "type": "x", "match": "m1", "n": 7, "players": ["p2"], "text": "5 $" })
        );
        for text in ["$seat", "$3.player", "$0.player", "$1.player"] {
            let unknown = fill_in(&mut json!({ "a": text }), 0, &[&own, &other]);
            assert_eq!(unknown, Err(BadStep::Unknown(text.into())));
        }
    }
}
