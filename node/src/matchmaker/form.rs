//! Forming: from the tickets that wait in a queue to the matches that can begin now.
//!
//! A pure function of the rules and the pool; it has no clock and no chance, so the same pool gives the same matches on every node.
//! Claiming the tickets is not its business: between reading and claiming any of them may be gone.
//!
//! The oldest ticket chooses first, so nobody is passed over for ever: whatever match an old ticket could be part of, it is tried
//! before any match of younger ones. Players of one party are one group: all of them in one team, or none. The skills of a match
//! lie within the window of the one in it that has waited longest, and windows only grow by waiting: two who fit go on fitting.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use rookery_protocol::{PartyId, TicketId};

use super::property::{Properties, Query};

/// Looks at other groups in one pass over the pool, shared out among the groups: a pool of ten thousand costs as much as a pool of
/// a thousand. In the test profile it is some 50 ms.
const LOOKS_MAX: usize = 400_000;

/// Looks that each group has however large the pool is, or four for each player of a match. What it does not see now it sees later,
/// when those before it are gone.
const LOOKS_MIN: usize = 48;

/// What a queue's matches are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub min_players: usize,
    pub max_players: usize,
    /// Players are split evenly into this many.
    pub teams: usize,
    /// Properties that are equal in all tickets of a match.
    pub match_on: Vec<String>,
    pub skill: Option<Skill>,
    /// How long a match of fewer than `max_players` waits for more.
    pub fill_for_ms: u64,
}

impl Rules {
    /// The most players that may stay together.
    pub fn party_max(&self) -> usize {
        self.max_players / self.teams.max(1)
    }
}

/// How far apart players of one match may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Skill {
    /// Whose number counts; a ticket without it counts as 0.
    pub property: String,
    pub window: f64,
    /// By how much the window grows every `every_ms` of waiting.
    pub widen: f64,
    pub every_ms: u64,
}

impl Skill {
    /// How far apart the players of a match may be when the one that waited longest waited this long.
    pub fn window_after(&self, waited_ms: u64) -> f64 {
        let times = waited_ms.checked_div(self.every_ms).unwrap_or(0);
        self.window + self.widen * times as f64
    }
}

/// A ticket that waits, and whose player is here.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub ticket: TicketId,
    /// The party it queued with, and how many of its tickets there are: a party plays whole or not at all.
    pub party: Option<(PartyId, usize)>,
    pub waited_ms: u64,
    pub properties: Properties,
    pub query: Query,
}

/// A match that can begin: places in the pool, each with its team, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formed {
    pub members: Vec<(usize, u32)>,
}

/// All matches that can begin now. No ticket is in two of them.
pub fn form(rules: &Rules, pool: &[Waiting]) -> Vec<Formed> {
    let mut former = Former::new(rules, pool);
    let order: Vec<usize> = (0..former.groups.len()).collect();
    let mut formed = Vec::new();
    // Groups are in the order of their waiting, the oldest first.
    for anchor in order {
        if former.taken[anchor] {
            continue;
        }
        let found = former.match_of(anchor);
        match found {
            Some(chosen) => {
                chosen.iter().for_each(|(group, _)| former.take(*group));
                formed.push(former.formed(&chosen));
            }
            // Whoever comes after it is younger: a match with both would have been found now.
            None => former.take(anchor),
        }
    }
    formed
}

/// Tickets that stay together: one, or a whole party.
struct Group {
    members: Vec<usize>,
    /// How long its first ticket has waited.
    waited_ms: u64,
    first: TicketId,
    /// What its match must have in common.
    key: Vec<String>,
    skill: f64,
    /// Members that ask something of the others.
    asking: Vec<usize>,
}

struct Former<'a> {
    rules: &'a Rules,
    pool: &'a [Waiting],
    groups: Vec<Group>,
    taken: Vec<bool>,
    /// Neighbours of the same key, by waiting and by skill.
    by_age: Chain,
    by_skill: Chain,
    looks: usize,
}

/// Doubly linked places, so that what is taken costs no look any more.
struct Chain {
    before: Vec<Option<usize>>,
    after: Vec<Option<usize>>,
}

impl Chain {
    /// Links each list in its order.
    fn of<'l>(len: usize, lists: impl Iterator<Item = &'l Vec<usize>>) -> Self {
        let mut chain = Self {
            before: vec![None; len],
            after: vec![None; len],
        };
        for list in lists {
            for pair in list.windows(2) {
                chain.after[pair[0]] = Some(pair[1]);
                chain.before[pair[1]] = Some(pair[0]);
            }
        }
        chain
    }

    fn remove(&mut self, place: usize) {
        let (before, after) = (self.before[place].take(), self.after[place].take());
        if let Some(before) = before {
            self.after[before] = after;
        }
        if let Some(after) = after {
            self.before[after] = before;
        }
    }
}

impl<'a> Former<'a> {
    fn new(rules: &'a Rules, pool: &'a [Waiting]) -> Self {
        let groups = groups_of(rules, pool);
        let mut by_key: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
        for (place, group) in groups.iter().enumerate() {
            by_key.entry(&group.key).or_default().push(place);
        }
        let by_age = Chain::of(groups.len(), by_key.values());
        for list in by_key.values_mut() {
            list.sort_by(|a, b| groups[*a].skill.total_cmp(&groups[*b].skill).then(a.cmp(b)));
        }
        let by_skill = Chain::of(groups.len(), by_key.values());
        Self {
            rules,
            pool,
            taken: vec![false; groups.len()],
            by_age,
            by_skill,
            looks: (LOOKS_MAX / groups.len().max(1))
                .max(LOOKS_MIN)
                .max(rules.max_players * 4),
            groups,
        }
    }

    fn take(&mut self, place: usize) {
        self.taken[place] = true;
        self.by_age.remove(place);
        self.by_skill.remove(place);
    }

    fn formed(&self, chosen: &[(usize, u32)]) -> Formed {
        let members = chosen.iter().flat_map(|(group, team)| {
            let members = &self.groups[*group].members;
            members.iter().map(|member| (*member, *team))
        });
        Formed {
            members: members.collect(),
        }
    }

    /// The largest match that this group can begin now, with those that fit it best.
    fn match_of(&self, anchor: usize) -> Option<Vec<(usize, u32)>> {
        let group = &self.groups[anchor];
        let teams = self.rules.teams.max(1);
        let window = self
            .rules
            .skill
            .as_ref()
            .map(|skill| skill.window_after(group.waited_ms));
        let candidates = self.candidates(anchor, window);
        let available: usize = group.members.len() + candidates.iter().map(|place| self.size(*place)).sum::<usize>();
        let team_min = self.rules.min_players.div_ceil(teams).max(1);
        let team_max = self.rules.max_players / teams;
        let smallest = if group.waited_ms >= self.rules.fill_for_ms {
            team_min
        } else {
            team_max
        };
        let mut steps = self.looks * 4;
        for team_size in (smallest..=team_max.min(available / teams)).rev() {
            let mut packing = Packing::new(self, teams, team_size, window, &mut steps);
            if !packing.place_first(anchor) {
                continue;
            }
            if packing.fill(&candidates, 0) {
                return Some(packing.chosen);
            }
            // Those nearest on both sides may stand in each other's way: try each stretch of skill by itself.
            let Some(window) = window else { continue };
            for stretch in self.stretches(anchor, &candidates, window) {
                if packing.fill(&stretch, 0) {
                    return Some(packing.chosen);
                }
            }
        }
        None
    }

    fn size(&self, place: usize) -> usize {
        self.groups[place].members.len()
    }

    /// Who could be in a match with this group: the nearest in skill first, or else the oldest.
    fn candidates(&self, anchor: usize, window: Option<f64>) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut looks = self.looks;
        let mut consider = |place: usize| {
            if self.agree(anchor, place) {
                candidates.push(place);
            }
            looks -= 1;
            looks > 0
        };
        let Some(window) = window else {
            let mut next = self.by_age.after[anchor];
            while let Some(place) = next {
                if !consider(place) {
                    break;
                }
                next = self.by_age.after[place];
            }
            return candidates;
        };
        let skill = self.groups[anchor].skill;
        let within = |place: &usize| (self.groups[*place].skill - skill).abs() <= window;
        let mut below = self.by_skill.before[anchor].filter(within);
        let mut above = self.by_skill.after[anchor].filter(within);
        loop {
            let nearer_below = match (below, above) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(below), Some(above)) => {
                    let distance = |place: usize| (self.groups[place].skill - skill).abs();
                    (distance(below), below) < (distance(above), above)
                }
            };
            let next = if nearer_below { &mut below } else { &mut above };
            let Some(place) = *next else { break };
            let chain = if nearer_below {
                &self.by_skill.before
            } else {
                &self.by_skill.after
            };
            *next = chain[place].filter(within);
            if !consider(place) {
                break;
            }
        }
        candidates
    }

    /// The candidates in each stretch of skill that is as wide as the window and holds the anchor.
    fn stretches(&self, anchor: usize, candidates: &[usize], window: f64) -> Vec<Vec<usize>> {
        let skill = |place: usize| self.groups[place].skill;
        let own = skill(anchor);
        let mut starts: Vec<f64> = candidates
            .iter()
            .map(|place| skill(*place))
            .filter(|from| *from <= own)
            .collect();
        starts.push(own);
        starts.sort_by(|a, b| b.total_cmp(a));
        starts.dedup();
        let stretch = |from: &f64| {
            let fits = candidates
                .iter()
                .filter(|place| (*from..=*from + window).contains(&skill(**place)));
            fits.copied().collect()
        };
        starts.iter().map(stretch).collect()
    }

    /// Whether two groups may meet, as far as they themselves ask.
    fn agree(&self, a: usize, b: usize) -> bool {
        self.accepts(a, b) && self.accepts(b, a)
    }

    fn accepts(&self, asking: usize, other: usize) -> bool {
        self.groups[asking].asking.iter().all(|asking| {
            let mut others = self.groups[other].members.iter();
            others.all(|other| self.pool[*asking].query.accepts(&self.pool[*other].properties))
        })
    }
}

/// What a ticket's match must have in common, as text that is equal where the values are.
fn key_of(rules: &Rules, properties: &Properties) -> Vec<String> {
    rules.match_on.iter().map(|name| properties.text(name)).collect()
}

/// The groups that may play now, the oldest first. Of a party that is not all here nobody is.
fn groups_of(rules: &Rules, pool: &[Waiting]) -> Vec<Group> {
    let mut parties: BTreeMap<PartyId, Vec<usize>> = BTreeMap::new();
    let mut lists: Vec<Vec<usize>> = Vec::new();
    for (index, waiting) in pool.iter().enumerate() {
        match waiting.party {
            Some((party, _)) => parties.entry(party).or_default().push(index),
            None => lists.push(vec![index]),
        }
    }
    lists.extend(parties.into_values().filter(|members| {
        let size = members
            .first()
            .and_then(|first| pool[*first].party)
            .map(|(_, size)| size);
        size == Some(members.len())
    }));
    let mut groups: Vec<Group> = lists
        .into_iter()
        .filter_map(|mut members| {
            members.sort_by_key(|member| pool[*member].ticket);
            let first = *members.first()?;
            let skill = rules.skill.as_ref().map_or(0.0, |skill| {
                let own = members
                    .iter()
                    .map(|member| pool[*member].properties.number(&skill.property));
                own.map(Option::unwrap_or_default).sum::<f64>() / members.len() as f64
            });
            Some(Group {
                waited_ms: members.iter().map(|member| pool[*member].waited_ms).max()?,
                first: pool[first].ticket,
                key: key_of(rules, &pool[first].properties),
                skill,
                asking: members
                    .iter()
                    .copied()
                    .filter(|member| !pool[*member].query.is_empty())
                    .collect(),
                members,
            })
        })
        .collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.waited_ms), group.first));
    groups
}

/// The search for groups that fill teams exactly. It tries them in the order in which they are given and takes back what leads
/// nowhere, as long as it has steps left.
struct Packing<'a, 'b> {
    former: &'b Former<'a>,
    team_size: usize,
    teams: Vec<usize>,
    missing: usize,
    chosen: Vec<(usize, u32)>,
    window: Option<f64>,
    steps: &'b mut usize,
}

impl<'a, 'b> Packing<'a, 'b> {
    fn new(former: &'b Former<'a>, teams: usize, team_size: usize, window: Option<f64>, steps: &'b mut usize) -> Self {
        Self {
            former,
            team_size,
            teams: vec![0; teams],
            missing: teams * team_size,
            chosen: Vec::new(),
            window,
            steps,
        }
    }

    /// Puts the first group into the first team; false if it is larger than a team.
    fn place_first(&mut self, anchor: usize) -> bool {
        let fits = self.former.size(anchor) <= self.team_size;
        if fits {
            self.put(anchor, 0);
        }
        fits
    }

    fn put(&mut self, place: usize, team: usize) {
        let size = self.former.size(place);
        self.teams[team] += size;
        self.missing -= size;
        self.chosen.push((place, team as u32));
    }

    fn take_back(&mut self) {
        if let Some((place, team)) = self.chosen.pop() {
            let size = self.former.size(place);
            self.teams[team as usize] -= size;
            self.missing += size;
        }
    }

    /// Fills the teams from these candidates; when it fails everything is as before.
    fn fill(&mut self, candidates: &[usize], from: usize) -> bool {
        if self.missing == 0 {
            return true;
        }
        for next in from..candidates.len() {
            if *self.steps == 0 {
                return false;
            }
            *self.steps -= 1;
            let place = candidates[next];
            if !self.fits(place) {
                continue;
            }
            let size = self.former.size(place);
            let mut tried = Vec::new();
            let mut teams: Vec<usize> = (0..self.teams.len()).collect();
            teams.sort_by_key(|team| self.teams[*team]);
            for team in teams {
                let has = self.teams[team];
                // Teams with as many players are the same team, as far as packing goes.
                if has + size > self.team_size || tried.contains(&has) {
                    continue;
                }
                tried.push(has);
                self.put(place, team);
                if self.fill(candidates, next + 1) {
                    return true;
                }
                self.take_back();
            }
        }
        false
    }

    fn fits(&self, place: usize) -> bool {
        let former = self.former;
        if let Some(window) = self.window {
            let skills = self.chosen.iter().map(|(chosen, _)| former.groups[*chosen].skill);
            let own = former.groups[place].skill;
            let (low, high) = skills.fold((own, own), |(low, high), skill| (low.min(skill), high.max(skill)));
            if high - low > window {
                return false;
            }
        }
        self.chosen.iter().all(|(chosen, _)| former.agree(*chosen, place))
    }
}

#[cfg(test)]
mod tests;
