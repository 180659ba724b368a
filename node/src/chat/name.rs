//! Names of channels: as clients write them, and as the store knows them. Pure.
//!
//! A `dm:` is one channel of two players, whom each names by the other; everything else has one name. Whether a player may use
//! a channel that exists by its name (a seat in the match, a world that is configured) is decided where that is known.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{MatchId, PlayerId};

/// Characters of a room's name.
const ROOM_NAME_MAX: usize = 64;

/// A channel, whoever looks at it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ChannelName {
    /// Anyone's.
    Room(String),
    /// Of those who are seated in a match.
    Match(MatchId),
    /// Anyone's in a configured world.
    World(String),
    /// Of two players; the lower id first.
    Dm(PlayerId, PlayerId),
}

impl ChannelName {
    /// Reads what a player calls a channel.
    ///
    /// # Errors
    /// `channel.invalid`.
    pub(crate) fn read(text: &str, player: PlayerId) -> Result<Self, Refusal> {
        let invalid = |message: &str| Err(Refusal::new(ErrorCode::ChannelInvalid, message));
        let Some((kind, name)) = text.split_once(':') else {
            return invalid("a channel is room:<name>, match:<id>, world:<name> or dm:<player>");
        };
        match kind {
            "room" if is_room_name(name) => Ok(Self::Room(name.into())),
            "room" => invalid(
                "a room's name is 1 to 64 characters, none of them a control character, and neither begins nor ends with a space",
            ),
            "match" => name
                .parse()
                .map(Self::Match)
                .or_else(|_| invalid("match:<id> takes the id of a match")),
            "world" if !name.is_empty() => Ok(Self::World(name.into())),
            "world" => invalid("world:<name> takes the name of a world"),
            "dm" => match name.parse::<PlayerId>() {
                Ok(other) if other == player => invalid("nobody else would hear a dm: to oneself"),
                Ok(other) => Ok(Self::Dm(other.min(player), other.max(player))),
                Err(_) => invalid("dm:<player> takes the id of a player"),
            },
            _ => invalid("channels begin with room:, match:, world: or dm:"),
        }
    }

    /// Reads what [`fmt::Display`] wrote; none for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "room" => is_room_name(name).then(|| Self::Room(name.into())),
            "match" => name.parse().ok().map(Self::Match),
            "world" => (!name.is_empty()).then(|| Self::World(name.into())),
            "dm" => {
                let (low, high) = name.split_once(':')?;
                let (low, high): (PlayerId, PlayerId) = (low.parse().ok()?, high.parse().ok()?);
                (low < high).then_some(Self::Dm(low, high))
            }
            _ => None,
        }
    }

    /// What this player calls it.
    pub(crate) fn seen_by(&self, player: PlayerId) -> String {
        match self {
            Self::Dm(low, high) => format!("dm:{}", if *low == player { high } else { low }),
            Self::Room(_) | Self::Match(_) | Self::World(_) => self.to_string(),
        }
    }

    /// The two players of a `dm:`.
    pub(crate) fn players(&self) -> Option<[PlayerId; 2]> {
        match self {
            Self::Dm(low, high) => Some([*low, *high]),
            Self::Room(_) | Self::Match(_) | Self::World(_) => None,
        }
    }
}

/// As the store and other nodes know it.
impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(name) => write!(f, "room:{name}"),
            Self::Match(id) => write!(f, "match:{id}"),
            Self::World(name) => write!(f, "world:{name}"),
            Self::Dm(low, high) => write!(f, "dm:{low}:{high}"),
        }
    }
}

fn is_room_name(name: &str) -> bool {
    let length = name.chars().take(ROOM_NAME_MAX + 1).count();
    (1..=ROOM_NAME_MAX).contains(&length) && !name.contains(char::is_control) && name.trim() == name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn player(no: u128) -> PlayerId {
        PlayerId::from_u128(no)
    }

    #[test]
    fn a_dm_is_one_channel_that_each_names_by_the_other() {
        let (ana, ben) = (player(7), player(3));
        let by_ana = ChannelName::read(&format!("dm:{ben}"), ana).unwrap();
        let by_ben = ChannelName::read(&format!("dm:{ana}"), ben).unwrap();
        assert_eq!(by_ana, by_ben);
        assert_eq!(by_ana.seen_by(ana), format!("dm:{ben}"));
        assert_eq!(by_ana.seen_by(ben), format!("dm:{ana}"));
        assert_eq!(by_ana.players(), Some([ben, ana]));
    }

    #[test]
    fn what_names_no_channel_is_refused() {
        let long = format!("room:{}", "ä".repeat(65));
        let own = format!("dm:{}", player(7));
        for text in [
            "",
            "room",
            "room:",
            "room: a",
            "room:a\n",
            "room:a\0b",
            "Room:a",
            "match:",
            "match:x",
            "world:",
            "dm:",
            "dm:ben",
            "zone:a",
            &long,
            &own,
        ] {
            let refused = ChannelName::read(text, player(7)).unwrap_err();
            assert_eq!(refused.code, ErrorCode::ChannelInvalid, "{text:?}");
        }
        assert!(ChannelName::read(&format!("room:{}", "ä".repeat(64)), player(7)).is_ok());
    }

    proptest! {
        #[test]
        fn a_name_is_read_back_as_it_was_written(text in "(room|world):[a-zä: /%]{1,20}|dm:[0-9a-hjkmnp-tv-z]{26}|match:0[0-9a-hjkmnp-tv-z]{25}") {
            if let Ok(name) = ChannelName::read(&text, player(7)) {
                prop_assert_eq!(ChannelName::parse(&name.to_string()), Some(name.clone()));
                prop_assert_eq!(ChannelName::read(&name.seen_by(player(7)), player(7)), Ok(name));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = ChannelName::read(&text, player(7));
            ChannelName::parse(&text);
        }
    }
}
