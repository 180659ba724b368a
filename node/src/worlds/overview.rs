//! What is said of worlds: which zones run, which of them do not and why, and whether a world is online.
//!
//! Pure: [`assemble`] puts together what the rows, the zones' owners and the leader say. It changes nothing.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::peer::ZoneHere;
use rookery_protocol::{MatchId, NodeLife};

use crate::config::World;
use crate::store::{MatchStatus, ZoneRow};

/// Where a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whereabouts {
    Running,
    /// On its way from one node to another: players in it notice a short pause.
    Moving,
    /// It runs nowhere now.
    Missing,
}

impl Whereabouts {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Moving => "moving",
            Self::Missing => "missing",
        }
    }
}

/// What is known of a zone's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// That life of the node is over.
    Gone,
    /// It lives and did not answer in time: what its rows say is believed.
    Silent,
    /// The zones that are here.
    Says(Vec<ZoneHere>),
}

/// Everything that the answer goes by. Zones are named `<world>/<zone>`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub rows: BTreeMap<String, ZoneRow>,
    pub owners: BTreeMap<NodeLife, Owner>,
    /// Modules that are not there, and what is said of each.
    pub unpublished: BTreeMap<String, String>,
    pub moving: BTreeSet<String>,
    /// Zones that do not start, and why.
    pub trouble: BTreeMap<String, String>,
}

/// A world, as it is seen from here.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldSeen {
    pub world: String,
    pub zones: Vec<ZoneSeen>,
}

/// A zone, as it is seen from here.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneSeen {
    pub zone: String,
    pub row: Option<ZoneRow>,
    pub state: Whereabouts,
    pub players: u32,
    /// The zones that one may walk to from here, as the configuration has them.
    pub neighbours: Vec<String>,
    /// Why it does not run.
    pub why: Option<String>,
}

impl ZoneSeen {
    pub fn target(&self) -> Option<MatchId> {
        self.row.as_ref().map(|row| row.id)
    }
}

impl WorldSeen {
    /// All its zones run.
    pub fn is_online(&self) -> bool {
        self.zones.iter().all(|zone| zone.state != Whereabouts::Missing)
    }

    /// Why it is not online: what keeps the first zone, and how many others do not run either.
    pub fn why(&self) -> Option<String> {
        let mut missing = self.zones.iter().filter(|zone| zone.state == Whereabouts::Missing);
        let first = missing.next()?;
        let why = first.why.as_deref().unwrap_or("it does not run");
        let why = format!("zone {}: {why}", first.zone);
        Some(match missing.count() {
            0 => why,
            1 => format!("{why}; and one more zone"),
            others => format!("{why}; and {others} more zones"),
        })
    }
}

/// What a zone's match is called.
pub fn name(world: &str, zone: &str) -> String {
    format!("{world}/{zone}")
}

/// The names of all zones.
pub fn names(worlds: &BTreeMap<String, World>) -> Vec<String> {
    let of_world = |(world, rules): (&String, &World)| -> Vec<String> {
        rules.zones.keys().map(|zone| name(world, zone)).collect()
    };
    worlds.iter().flat_map(of_world).collect()
}

/// Puts together what is known of each world.
pub fn assemble(worlds: &BTreeMap<String, World>, facts: &Facts) -> Vec<WorldSeen> {
    worlds
        .iter()
        .map(|(world, rules)| WorldSeen {
            world: world.clone(),
            zones: rules
                .zones
                .iter()
                .map(|(zone, wish)| {
                    let name = name(world, zone);
                    let row = facts.rows.get(&name).cloned();
                    let owner = row.as_ref().and_then(|row| facts.owners.get(&row.owner));
                    let here = row.as_ref().zip(owner).and_then(|(row, owner)| match owner {
                        Owner::Says(zones) => zones.iter().find(|here| here.target == row.id),
                        Owner::Gone | Owner::Silent => None,
                    });
                    let why = why_missing(&name, &wish.module, row.as_ref(), owner, here.is_some(), facts);
                    let state = if row.is_some() && facts.moving.contains(&name) && !matches!(owner, Some(Owner::Gone))
                    {
                        Whereabouts::Moving
                    } else if why.is_some() {
                        Whereabouts::Missing
                    } else {
                        Whereabouts::Running
                    };
                    ZoneSeen {
                        zone: zone.clone(),
                        row,
                        state,
                        players: here.map_or(0, |here| here.players),
                        neighbours: rules.neighbours_of(zone),
                        why: why.filter(|_| state == Whereabouts::Missing),
                    }
                })
                .collect(),
        })
        .collect()
}

/// Why a zone does not run; none if it does.
fn why_missing(
    name: &str,
    module: &str,
    row: Option<&ZoneRow>,
    owner: Option<&Owner>,
    is_here: bool,
    facts: &Facts,
) -> Option<String> {
    let Some(row) = row else {
        let unpublished = facts.unpublished.get(module).cloned();
        let trouble = || facts.trouble.get(name).map(|why| format!("it does not start: {why}"));
        return Some(
            unpublished
                .or_else(trouble)
                .unwrap_or_else(|| "it is being placed".into()),
        );
    };
    let node = &row.owner.name;
    match (row.status, owner) {
        (_, Some(Owner::Gone)) => Some(format!("its node {node} is gone, and it waits for another one")),
        (MatchStatus::Running, Some(Owner::Says(_))) if !is_here => Some(format!("it is about to run on {node}")),
        (MatchStatus::Running, Some(Owner::Says(_) | Owner::Silent) | None) => None,
        (MatchStatus::Starting, _) => Some(format!("it is starting on {node}")),
        (MatchStatus::Ended | MatchStatus::Failed | MatchStatus::Lost, _) => Some("it is over".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Zone;

    fn worlds() -> BTreeMap<String, World> {
        let zone = |module: &str| Zone {
            module: module.into(),
            params: serde_json::Value::Null,
        };
        let zones = [("mill", zone("v")), ("square", zone("v")), ("well", zone("w"))];
        let world = World {
            zones: zones.map(|(name, zone)| (name.to_owned(), zone)).into(),
            ..World::default()
        };
        BTreeMap::from([("village".to_owned(), world)])
    }

    fn life(name: &str) -> NodeLife {
        NodeLife {
            name: name.parse().unwrap(),
            generation: 1,
        }
    }

    fn row(no: u64, zone: &str, owner: &str, status: MatchStatus) -> (String, ZoneRow) {
        let name = name("village", zone);
        let row = ZoneRow {
            name: name.clone(),
            id: MatchId::from_parts(no, 1),
            owner: life(owner),
            epoch: 1,
            status,
        };
        (name, row)
    }

    fn here(no: u64, players: u32) -> ZoneHere {
        ZoneHere {
            target: MatchId::from_parts(no, 1),
            players,
            seated: false,
        }
    }

    /// All three zones run, on two nodes.
    fn facts() -> Facts {
        Facts {
            rows: BTreeMap::from([
                row(1, "mill", "a", MatchStatus::Running),
                row(2, "square", "b", MatchStatus::Running),
                row(3, "well", "b", MatchStatus::Running),
            ]),
            owners: BTreeMap::from([
                (life("a"), Owner::Says(vec![here(1, 4)])),
                (life("b"), Owner::Says(vec![here(2, 0), here(3, 7)])),
            ]),
            ..Facts::default()
        }
    }

    fn states(facts: &Facts) -> (bool, Vec<(&'static str, u32)>, Option<String>) {
        let seen = assemble(&worlds(), facts).remove(0);
        let zones = seen
            .zones
            .iter()
            .map(|zone| (zone.state.as_str(), zone.players))
            .collect();
        (seen.is_online(), zones, seen.why())
    }

    #[test]
    fn a_world_is_online_when_all_its_zones_run() {
        let running = vec![("running", 4), ("running", 0), ("running", 7)];
        assert_eq!(states(&facts()), (true, running, None));

        // Who is slow to answer, or moving, runs all the same.
        let mut silent = facts();
        silent.owners.insert(life("b"), Owner::Silent);
        silent.moving.insert("village/mill".into());
        let zones = vec![("moving", 4), ("running", 0), ("running", 0)];
        assert_eq!(states(&silent), (true, zones, None));
    }

    #[test]
    fn a_world_that_is_not_online_says_why() {
        let check = |change: &dyn Fn(&mut Facts), expected: &str| {
            let mut facts = facts();
            change(&mut facts);
            let (online, zones, why) = states(&facts);
            assert!(!online && zones.iter().any(|(state, _)| *state == "missing"));
            assert_eq!(why.as_deref(), Some(expected));
        };
        check(
            &|facts| drop(facts.rows.remove("village/well")),
            "zone well: it is being placed",
        );
        check(
            &|facts| {
                facts.rows.remove("village/well");
                facts.unpublished.insert("w".into(), "no module w is published".into());
            },
            "zone well: no module w is published",
        );
        check(
            &|facts| {
                facts.rows.remove("village/mill");
                facts.trouble.insert("village/mill".into(), "no gate".into());
            },
            "zone mill: it does not start: no gate",
        );
        check(
            &|facts| facts.rows.extend([row(2, "square", "b", MatchStatus::Starting)]),
            "zone square: it is starting on b",
        );
        check(
            &|facts| drop(facts.owners.insert(life("b"), Owner::Says(vec![here(3, 0)]))),
            "zone square: it is about to run on b",
        );
        check(
            &|facts| drop(facts.owners.insert(life("b"), Owner::Gone)),
            "zone square: its node b is gone, and it waits for another one; and one more zone",
        );
        check(
            &|facts| facts.rows.clear(),
            "zone mill: it is being placed; and 2 more zones",
        );
    }

    #[test]
    fn a_zone_whose_module_is_gone_from_the_list_goes_on_running() {
        let mut facts = facts();
        facts.unpublished.insert("v".into(), "no module v is published".into());
        facts.trouble.insert("village/mill".into(), "long ago".into());
        assert!(states(&facts).0, "what runs needs nothing more");
    }

    #[test]
    fn a_zone_names_the_zones_beside_it() {
        let pairs = [
            ["square", "mill"],
            ["well", "square"],
            ["square", "mill"],
            ["well", "sea"],
        ];
        let mut worlds = worlds();
        worlds.get_mut("village").expect("it is there").neighbours =
            pairs.iter().map(|pair| pair.map(str::to_owned).to_vec()).collect();
        let seen = assemble(&worlds, &facts());
        let beside: Vec<(&str, Vec<&str>)> = seen[0]
            .zones
            .iter()
            .map(|zone| (zone.zone.as_str(), zone.neighbours.iter().map(String::as_str).collect()))
            .collect();
        // The sea is no zone yet.
        let expected = [
            ("mill", vec!["square"]),
            ("square", vec!["mill", "well"]),
            ("well", vec!["square"]),
        ];
        assert_eq!(beside, expected);
    }
}
