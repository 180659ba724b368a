//! Chat: channels and their lines. A line's number is drawn in the transaction that inserts it, so the order of numbers is the
//! order of commits and there are no gaps; a sequence of the database would promise neither.
//!
//! Not here: who may write, and who hears it. A channel's row is never deleted, so that no number is given twice; its lines are
//! swept after a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use rookery_protocol::client::ChatLine;
use serde_json::json;

use super::batch::Write;
use super::effects::{self, Begun, EffectId, Fenced};
use super::sql::{Row, Sql, Transaction, args};
use super::{Store, StoreError};

/// A line that is to be written.
#[derive(Debug, Clone)]
pub struct NewLine {
    pub channel: String,
    pub sender: String,
    pub text: String,
    /// The match's effect that this is, and the epoch under which it left the match.
    pub effect: Option<(EffectId, u64)>,
}

/// A line as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenLine {
    pub number: u64,
    pub at_ms: u64,
    /// Whether an earlier try wrote it: those who were to hear of it may have been told.
    pub is_repeat: bool,
}

/// A stretch of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelView {
    /// The number of the last line; 0 when there is none.
    pub last: u64,
    /// In number order.
    pub lines: Vec<ChatLine>,
    /// What the database's clock said; 0 when there is no line.
    pub at_ms: u64,
}

/// How far a sweep came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatSweep {
    pub deleted: u64,
    /// Where the next sweep goes on; none at the end.
    pub after: Option<String>,
}

/// Draws numbers: each row `[channel, lines]`, in the order of names, so that two nodes never wait for each other in a circle.
const DRAW: Sql = Sql {
    sqlite: "insert into channels (name, last) select r.value ->> 0, r.value ->> 1 from json_each($1) as r where true
             on conflict (name) do update set last = channels.last + excluded.last
             returning name, last, (select now_ms from clock) as at",
    postgres: "insert into channels (name, last) select r.v ->> 0, (r.v ->> 1)::bigint
               from jsonb_array_elements($1::jsonb) with ordinality as r (v, no) order by no
               on conflict (name) do update set last = channels.last + excluded.last
               returning name, last, (select now_ms from clock) as at",
};

/// Each row `[channel, number, sender, text, at]`.
const INSERT: Sql = Sql {
    sqlite: "insert into channel_lines (channel, number, sender, text, at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4 from json_each($1) as r",
    postgres: "insert into channel_lines (channel, number, sender, text, at)
               select r.v ->> 0, (r.v ->> 1)::bigint, r.v ->> 2, r.v ->> 3, (r.v ->> 4)::bigint
               from jsonb_array_elements($1::jsonb) as r (v)",
};

/// The channel's last number and its newest lines above a number, by one statement, so that both are of one moment.
const VIEW: Sql = Sql::both(
    "select c.last, (select now_ms from clock) as now_ms, l.number, l.sender, l.text, l.at from channels c
     left join (select number, sender, text, at from channel_lines where channel = $1 and number > $2
                order by number desc limit $3) l on true
     where c.name = $1 order by l.number",
);

const BETWEEN: Sql = Sql::both(
    "select number, sender, text, at from channel_lines where channel = $1 and number > $2 and number <= $3
     order by number limit $4",
);

const BEFORE: Sql = Sql::both(
    "select number, sender, text, at from channel_lines where channel = $1 and number < $2 order by number desc limit $3",
);

const LASTS: Sql = Sql {
    sqlite: "select c.name, c.last from json_each($1) as r join channels c on c.name = r.value",
    postgres: "select name, last from channels
               where name in (select v from jsonb_array_elements_text($1::jsonb) as r (v))",
};

const NAMES: Sql = Sql::both("select name from channels where name > $1 order by name limit $2");

/// The oldest lines of the named channels that are too old or too many. Old lines have low numbers, so that looking at the
/// first few is enough, and cheap where there is nothing to sweep.
const SWEEP: Sql = Sql {
    sqlite: "delete from channel_lines where (channel, number) in (
                 select l.channel, l.number from json_each($1) as r
                 join channels c on c.name = r.value
                 join channel_lines l on l.channel = c.name
                      and l.number < (select min(number) from channel_lines where channel = c.name) + $4
                 where l.at < (select now_ms from clock) - $2 or l.number <= c.last - $3)
             returning number",
    postgres: "delete from channel_lines where (channel, number) in (
                   select l.channel, l.number from jsonb_array_elements_text($1::jsonb) as r (v)
                   join channels c on c.name = r.v
                   join channel_lines l on l.channel = c.name
                        and l.number < (select min(number) from channel_lines where channel = c.name) + $4
                   where l.at < (select now_ms from clock) - $2 or l.number <= c.last - $3)
               returning number",
};

/// Lines of one channel deleted in one sweep.
const SWEPT_AT_ONCE: u32 = 500;

impl Store {
    /// Writes a line and returns its number. Lines of one channel that are queued one after the other are numbered so.
    ///
    /// When this fails with an outage the line may have been written all the same, unless it is an effect, which may be repeated.
    pub async fn append_line(&self, line: NewLine) -> Result<Result<WrittenLine, Fenced>, StoreError> {
        self.submit("append_line", |reply| Write::Line(Box::new(line), reply))
            .await
    }

    /// A channel's last number, and at most `limit` of the newest lines above `since`.
    pub async fn view_channel(&self, channel: &str, since: u64, limit: u32) -> Result<ChannelView, StoreError> {
        let rows = self.read("read_lines", &VIEW, args![channel, since, limit]).await?;
        let last = rows.first().map_or(Ok(0), |row| row.unsigned("last"))?;
        let at_ms = rows.first().map_or(Ok(0), |row| row.unsigned("now_ms"))?;
        let written = rows
            .iter()
            .filter(|row| row.get::<Option<i64>>("number").is_ok_and(|number| number.is_some()));
        let lines = written.map(chat_line).collect::<Result<_, _>>()?;
        Ok(ChannelView { last, lines, at_ms })
    }

    /// The lines above `after` and up to `through`, the first `limit` of them.
    pub async fn lines_between(
        &self,
        channel: &str,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<ChatLine>, StoreError> {
        let args = args![channel, after, through, limit];
        let rows = self.read("read_lines", &BETWEEN, args).await?;
        rows.iter().map(chat_line).collect()
    }

    /// The last `limit` lines below `before`, in number order.
    pub async fn lines_before(&self, channel: &str, before: u64, limit: u32) -> Result<Vec<ChatLine>, StoreError> {
        let mut rows = self.read("read_lines", &BEFORE, args![channel, before, limit]).await?;
        rows.reverse();
        rows.iter().map(chat_line).collect()
    }

    /// The last numbers of these channels; one without lines is left out.
    pub async fn last_lines(&self, channels: &[&str]) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = self
            .read("last_lines", &LASTS, args![json!(channels).to_string()])
            .await?;
        rows.iter()
            .map(|row| Ok((row.get("name")?, row.unsigned("last")?)))
            .collect()
    }

    /// Deletes what is older than `keep_ms` or further back than `keep_lines`, in the next `count` channels after this one.
    pub async fn sweep_lines(
        &self,
        after: &str,
        count: u32,
        keep_ms: u64,
        keep_lines: u64,
    ) -> Result<ChatSweep, StoreError> {
        let rows = self.read("sweep", &NAMES, args![after, count]).await?;
        let names = rows
            .iter()
            .map(|row| row.get::<String>("name"))
            .collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() {
            return Ok(ChatSweep {
                deleted: 0,
                after: None,
            });
        }
        let args = args![json!(names).to_string(), keep_ms, keep_lines, SWEPT_AT_ONCE];
        let deleted = self
            .write("sweep", async |transaction| {
                Ok(transaction.rows(&SWEEP, args).await?.len() as u64)
            })
            .await?;
        Ok(ChatSweep {
            deleted,
            after: (names.len() == count as usize).then(|| names[names.len() - 1].clone()),
        })
    }
}

fn chat_line(row: &Row) -> Result<ChatLine, StoreError> {
    Ok(ChatLine {
        message: row.unsigned("number")?,
        from: Arc::from(row.get::<String>("sender")?),
        text: Arc::from(row.get::<String>("text")?),
        at: row.unsigned("at")?,
    })
}

/// Numbers and inserts the group's lines, those of one channel in the order in which they came.
pub(super) async fn append(
    transaction: &mut Transaction,
    lines: &[Box<NewLine>],
) -> Result<Vec<Result<WrittenLine, Fenced>>, StoreError> {
    let (of_effects, asked): (Vec<usize>, Vec<_>) = lines
        .iter()
        .enumerate()
        .filter_map(|(no, line)| line.effect.map(|effect| (no, effect)))
        .unzip();
    let mut answers: Vec<Option<Result<WrittenLine, Fenced>>> = vec![None; lines.len()];
    for (no, begun) in of_effects.into_iter().zip(effects::begin(transaction, &asked).await?) {
        match begun {
            Begun::Fresh => {}
            Begun::Fenced => answers[no] = Some(Err(Fenced)),
            Begun::Repeat(answer) => {
                let (number, at_ms) = answer
                    .and_then(|answer| serde_json::from_str(&answer).ok())
                    .ok_or(StoreError::Damaged { column: "answer" })?;
                let is_repeat = true;
                answers[no] = Some(Ok(WrittenLine {
                    number,
                    at_ms,
                    is_repeat,
                }));
            }
        }
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, line) in lines.iter().enumerate().filter(|(no, _)| answers[*no].is_none()) {
        *counts.entry(&line.channel).or_default() += 1;
    }
    if counts.is_empty() {
        return Ok(answers.into_iter().flatten().collect());
    }
    let draws: Vec<_> = counts.iter().collect();
    let mut next: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in transaction.rows(&DRAW, args![json!(draws).to_string()]).await? {
        let name: String = row.get("name")?;
        let (last, at) = (row.unsigned("last")?, row.unsigned("at")?);
        let count = counts.get(name.as_str()).copied().unwrap_or(0);
        next.insert(name, (last.saturating_sub(count) + 1, at));
    }
    let (mut rows, mut applied) = (Vec::new(), Vec::new());
    for (line, answer) in lines.iter().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
        let (number, at_ms) = next
            .get_mut(&line.channel)
            .ok_or(StoreError::Damaged { column: "last" })?;
        rows.push(json!([line.channel, *number, line.sender, line.text, *at_ms]));
        if let Some((id, _)) = line.effect {
            applied.push((id, json!([*number, *at_ms]).to_string()));
        }
        *answer = Some(Ok(WrittenLine {
            number: *number,
            at_ms: *at_ms,
            is_repeat: false,
        }));
        *number += 1;
    }
    transaction.rows(&INSERT, args![json!(rows).to_string()]).await?;
    effects::answer(transaction, &applied).await?;
    Ok(answers.into_iter().flatten().collect())
}
