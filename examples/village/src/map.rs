//! The map of the village: nine zones of two rooms each, who lives there and what lies about when the world begins. It is
//! constant; what moves is in `lib.rs`. How an item looks is not here but in the shared content, collection `items`.
//!
//! ```text
//!     orchard ── chapel ── forest
//!        │          │         │
//!      mill ──── square ─── smithy
//!        │          │         │
//!      river ─── market ──── gate
//! ```

/// Where a way leads: a room of the same zone, or one of another zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Room(&'static str),
    Zone(&'static str, &'static str),
}

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) text: &'static str,
    pub(crate) exits: &'static [(&'static str, Way)],
    /// What lies here when the world begins.
    pub(crate) items: &'static [&'static str],
}

#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    /// The first is where people arrive who come from nowhere.
    pub(crate) rooms: &'static [Room],
}

impl Zone {
    pub(crate) fn entrance(&self) -> &'static Room {
        &self.rooms[0]
    }

    pub(crate) fn room(&self, name: &str) -> Option<&'static Room> {
        self.rooms.iter().find(|room| room.name == name)
    }
}

impl Room {
    pub(crate) fn way(&self, direction: &str) -> Option<Way> {
        let mut exits = self.exits.iter();
        exits.find(|(name, _)| *name == direction).map(|(_, way)| *way)
    }
}

/// Somebody whom no player plays.
#[derive(Debug)]
pub(crate) struct Actor {
    /// Claimed as `<world>-<id>`, so that `tell` finds them wherever they are.
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) home: &'static str,
    pub(crate) room: &'static str,
    pub(crate) wanders: bool,
    /// What they say to nobody in particular, and what they answer when told something.
    pub(crate) says: &'static [&'static str],
    pub(crate) answers: &'static [&'static str],
}

pub(crate) const CAST: &[Actor] = &[
    Actor {
        id: "wren",
        name: "Wren",
        home: "square",
        room: "green",
        wanders: true,
        says: &[
            "Needles, ribbons, news from nine parishes!",
            "My feet know every road here.",
            "Has anybody seen where I left my mule?",
        ],
        answers: &[
            "I hear you, wherever I am. Word travels faster than I do.",
            "Come and look at my ribbons when our ways cross.",
        ],
    },
    Actor {
        id: "tom",
        name: "Tom",
        home: "chapel",
        room: "yard",
        wanders: true,
        says: &[
            "That lamp wants oil.",
            "Mind the step, it is darker than it looks.",
            "One round more, and then to bed.",
        ],
        answers: &[
            "Can't stop, the lamps won't light themselves.",
            "Aye. Speak up, the wind is in my ears.",
        ],
    },
    Actor {
        id: "bakery",
        name: "Marta",
        home: "market",
        room: "bakery",
        wanders: false,
        says: &["Fresh from the oven!", "The flour from the mill is fine this year."],
        answers: &[
            "This is the bakery! Loaves lie on the table, take one.",
            "I will keep a loaf warm for you.",
        ],
    },
];

pub(crate) fn actor(id: &str) -> Option<&'static Actor> {
    CAST.iter().find(|actor| actor.id == id)
}

pub(crate) fn zone(name: &str) -> Option<&'static Zone> {
    ZONES.iter().find(|zone| zone.name == name)
}

/// A zone that a world has and the map does not: the world's operator may call zones as they like.
pub(crate) const MEADOW: Zone = Zone {
    name: "meadow",
    rooms: &[Room {
        name: "grass",
        title: "A meadow off the map",
        text: "Tall grass, and a path that somebody has trodden towards the village.",
        exits: &[("back", Way::Zone("square", "green"))],
        items: &[],
    }],
};

macro_rules! zones {
    ($($zone:literal {
        $($room:literal, $title:literal, $text:literal, [$($direction:literal $(to $other:literal)? at $target:literal),*], [$($item:literal),*];)*
    })*) => {
        &[$(Zone {
            name: $zone,
            rooms: &[$(Room {
                name: $room,
                title: $title,
                text: $text,
                exits: &[$(($direction, zones!(@way $($other)? ; $target))),*],
                items: &[$($item),*],
            }),*],
        }),*]
    };
    (@way ; $target:literal) => { Way::Room($target) };
    (@way $other:literal ; $target:literal) => { Way::Zone($other, $target) };
}

#[rustfmt::skip]
pub(crate) const ZONES: &[Zone] = zones! {
    "square" {
        "green", "The village green", "Geese argue under an old linden. All roads of the village meet here.",
            ["north" to "chapel" at "yard", "east" to "smithy" at "lane", "south" to "market" at "stalls", "west" to "mill" at "wheel", "in" at "hall"],
            ["coin"];
        "hall", "The village hall", "Long benches, a cold hearth, and minutes of meetings that nobody reads.",
            ["out" at "green"], ["lantern"];
    }
    "chapel" {
        "yard", "The chapel yard", "Leaning stones and one very loud rookery in the elms.",
            ["south" to "square" at "green", "west" to "orchard" at "trees", "east" to "forest" at "clearing", "in" at "nave"], [];
        "nave", "The nave", "Candle smoke, and a rope that goes up into the dark.",
            ["out" at "yard"], ["candle"];
    }
    "market" {
        "stalls", "The market stalls", "Awnings, baskets, and three people who sell the same cheese.",
            ["north" to "square" at "green", "west" to "river" at "bank", "east" to "gate" at "arch", "in" at "bakery"], ["basket"];
        "bakery", "Marta's bakery", "It is warm, and it smells as it should.",
            ["out" at "stalls"], ["loaf", "loaf"];
    }
    "mill" {
        "wheel", "The mill wheel", "The wheel turns whether anybody watches or not.",
            ["north" to "orchard" at "trees", "east" to "square" at "green", "south" to "river" at "bank", "in" at "loft"], [];
        "loft", "The flour loft", "Everything is white, the cat included.",
            ["out" at "wheel"], ["sack"];
    }
    "smithy" {
        "lane", "Smithy lane", "Ruts, sparks in the air, and a patient horse.",
            ["north" to "forest" at "clearing", "west" to "square" at "green", "south" to "gate" at "arch", "in" at "forge"], [];
        "forge", "The forge", "The bellows sigh. Something on the anvil is still red.",
            ["out" at "lane"], ["horseshoe"];
    }
    "orchard" {
        "trees", "The orchard", "Crooked trees in crooked rows.",
            ["east" to "chapel" at "yard", "south" to "mill" at "wheel", "in" at "shed"], ["apple", "apple"];
        "shed", "The orchard shed", "Ladders, rakes, and a wasp with opinions.",
            ["out" at "trees"], [];
    }
    "forest" {
        "clearing", "A clearing in the forest", "Light falls in coins through the leaves.",
            ["west" to "chapel" at "yard", "south" to "smithy" at "lane", "in" at "hut"], ["mushroom"];
        "hut", "The charcoal burner's hut", "Black walls, a made bed, nobody at home.",
            ["out" at "clearing"], [];
    }
    "river" {
        "bank", "The river bank", "The river is slow here and does not mind company.",
            ["north" to "mill" at "wheel", "east" to "market" at "stalls", "in" at "boathouse"], [];
        "boathouse", "The boathouse", "One boat, two oars, no two of a length.",
            ["out" at "bank"], ["rod"];
    }
    "gate" {
        "arch", "The gate", "Beyond the arch the road goes on to places with names.",
            ["north" to "smithy" at "lane", "west" to "market" at "stalls", "in" at "tower"], [];
        "tower", "The gate tower", "From here one sees all nine roofs of the village.",
            ["out" at "arch"], ["key"];
    }
};
