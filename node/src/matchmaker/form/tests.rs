use proptest::prelude::*;

use super::*;

fn rules(min_players: usize, max_players: usize, teams: usize) -> Rules {
    Rules {
        min_players,
        max_players,
        teams,
        match_on: Vec::new(),
        skill: None,
        fill_for_ms: 5_000,
    }
}

fn by_skill(window: f64, widen: f64) -> Rules {
    Rules {
        skill: Some(Skill {
            property: "skill".into(),
            window,
            widen,
            every_ms: 1_000,
        }),
        ..rules(2, 2, 1)
    }
}

fn waiting(no: u128, waited_ms: u64, properties: &str, query: &str) -> Waiting {
    Waiting {
        ticket: TicketId::from_u128(no),
        party: None,
        waited_ms,
        properties: Properties::read(properties).unwrap(),
        query: Query::read(query).unwrap(),
    }
}

fn skilled(no: u128, waited_ms: u64, skill: i32) -> Waiting {
    waiting(no, waited_ms, &format!(r#"{{"skill": {skill}}}"#), "{}")
}

fn with_party(party: u128, size: usize, waiting: Waiting) -> Waiting {
    Waiting {
        party: Some((PartyId::from_u128(party), size)),
        ..waiting
    }
}

fn places(formed: &[Formed]) -> Vec<Vec<usize>> {
    let sorted = |formed: &Formed| {
        let mut places: Vec<usize> = formed.members.iter().map(|(place, _)| *place).collect();
        places.sort_unstable();
        places
    };
    formed.iter().map(sorted).collect()
}

#[test]
fn the_oldest_two_meet_first() {
    let pool = [
        waiting(3, 10, "{}", "{}"),
        waiting(1, 30, "{}", "{}"),
        waiting(2, 20, "{}", "{}"),
    ];
    assert_eq!(places(&form(&rules(2, 2, 1), &pool)), [[1, 2]]);
}

#[test]
fn only_tickets_of_equal_properties_meet() {
    let rules = Rules {
        match_on: vec!["region".into(), "level".into()],
        ..rules(2, 2, 1)
    };
    let pool = [
        waiting(1, 40, r#"{"region": "eu", "level": 1}"#, "{}"),
        waiting(2, 30, r#"{"region": "us", "level": 1}"#, "{}"),
        waiting(3, 20, r#"{"region": "eu", "level": 2}"#, "{}"),
        waiting(4, 10, r#"{"region": "eu", "level": 1.0}"#, "{}"),
        waiting(5, 9, "{}", "{}"),
        waiting(6, 8, r#"{"region": null}"#, "{}"),
    ];
    assert_eq!(places(&form(&rules, &pool)), [[0, 3], [4, 5]]);
}

#[test]
fn the_one_that_waited_longest_says_how_far_apart_skills_may_be() {
    let rules = by_skill(100.0, 50.0);
    let pool = |waited_ms| [skilled(1, waited_ms, 1_000), skilled(2, 0, 1_200)];
    assert_eq!(form(&rules, &pool(1_999)), []);
    assert_eq!(places(&form(&rules, &pool(2_000))), [[0, 1]]);
}

#[test]
fn of_those_within_the_window_the_nearest_is_taken() {
    let pool = [
        skilled(1, 9, 1_000),
        skilled(2, 8, 1_090),
        skilled(3, 7, 970),
        skilled(4, 6, 1_080),
    ];
    assert_eq!(places(&form(&by_skill(100.0, 0.0), &pool)), [[0, 2], [1, 3]]);
}

#[test]
fn those_on_both_sides_of_the_oldest_do_not_stand_in_the_way_of_a_match() {
    let rules = Rules {
        min_players: 3,
        max_players: 3,
        ..by_skill(100.0, 0.0)
    };
    // The nearest is below, and with it nobody from above is within one window.
    let pool = [
        skilled(1, 9, 1_000),
        skilled(2, 8, 940),
        skilled(3, 7, 1_070),
        skilled(4, 6, 1_080),
    ];
    assert_eq!(places(&form(&rules, &pool)), [[0, 2, 3]]);
}

#[test]
fn what_a_ticket_asks_of_others_is_asked_of_all_in_its_match() {
    let pool = [
        waiting(
            1,
            50,
            r#"{"lang": "de"}"#,
            r#"{"lang": ["de", "en"], "age": {"min": 18}}"#,
        ),
        waiting(2, 40, r#"{"lang": "fr", "age": 30}"#, "{}"),
        waiting(3, 30, r#"{"lang": "en"}"#, "{}"),
        waiting(4, 20, r#"{"lang": "en", "age": 17}"#, "{}"),
        waiting(5, 10, r#"{"lang": "en", "age": 18}"#, r#"{"lang": "de"}"#),
    ];
    assert_eq!(places(&form(&rules(2, 2, 1), &pool)), [[0, 4], [1, 2]]);
}

#[test]
fn a_party_plays_whole_in_one_team_or_not_at_all() {
    let pool = [
        with_party(1, 2, waiting(1, 50, "{}", "{}")),
        waiting(2, 40, "{}", "{}"),
        waiting(3, 30, "{}", "{}"),
        with_party(1, 2, waiting(4, 50, "{}", "{}")),
    ];
    let formed = form(&rules(4, 4, 2), &pool);
    assert_eq!(formed.len(), 1);
    let team = |place: usize| formed[0].members.iter().find(|member| member.0 == place).unwrap().1;
    assert_eq!((team(0), team(1)), (team(3), team(2)));
    assert_ne!(team(0), team(1));
    // One of the party is not here.
    assert_eq!(form(&rules(3, 3, 1), &pool[..3]), []);
    // Three do not fit beside one.
    let three = [1, 2, 3].map(|no| with_party(7, 3, waiting(no, 9, "{}", "{}")));
    let pool = [three.as_slice(), &[waiting(4, 1, "{}", "{}")]].concat();
    assert_eq!(form(&rules(4, 4, 2), &pool), []);
    assert_eq!(places(&form(&rules(4, 4, 1), &pool)), [[0, 1, 2, 3]]);
}

#[test]
fn a_full_match_begins_at_once_and_a_smaller_one_after_a_while() {
    let rules = rules(2, 4, 2);
    let pool = |count: u128, waited_ms| -> Vec<Waiting> {
        let ticket = |no| waiting(no, waited_ms, "{}", "{}");
        (0..count).map(ticket).collect()
    };
    assert_eq!(form(&rules, &pool(4, 0)).len(), 1);
    assert_eq!(form(&rules, &pool(3, 4_999)), []);
    // Three are not split evenly.
    assert_eq!(places(&form(&rules, &pool(3, 5_000))), [[0, 1]]);
    assert_eq!(form(&rules, &pool(1, 60_000)), []);
}

/// Newcomers of the same skill come all the time, and never leave the outlier without a match for ever.
#[test]
fn nobody_starves_beside_a_stream_of_newcomers() {
    let rules = by_skill(100.0, 50.0);
    let mut pool = vec![skilled(1, 0, 3_000)];
    let (mut next, mut waited_s) = (2, 0);
    loop {
        pool.extend((0..4).map(|_| {
            next += 1;
            skilled(next, 0, 1_000)
        }));
        let matched = places(&form(&rules, &pool)).concat();
        if matched.contains(&0) {
            break;
        }
        let mut place = 0;
        pool.retain(|_| {
            place += 1;
            !matched.contains(&(place - 1))
        });
        waited_s += 1;
        pool.iter_mut().for_each(|waiting| waiting.waited_ms += 1_000);
        assert!(waited_s <= 38, "the window reaches everybody after 38 s");
    }
}

/// Ten thousand who do not fit together cost a bounded number of looks, and ten thousand who do are all matched.
#[test]
fn a_pool_of_ten_thousand_is_formed_in_one_pass() {
    let apart: Vec<Waiting> = (0..10_000).map(|no| skilled(no, 0, no as i32 * 200)).collect();
    assert_eq!(form(&by_skill(100.0, 0.0), &apart), []);
    let refusing: Vec<Waiting> = (0..10_000).map(|no| waiting(no, 0, "{}", r#"{"none": 1}"#)).collect();
    assert_eq!(form(&rules(2, 2, 1), &refusing), []);
    let alike: Vec<Waiting> = (0..10_000).map(|no| skilled(no, 0, (no * 7 % 3_000) as i32)).collect();
    assert_eq!(form(&by_skill(100.0, 0.0), &alike).len(), 5_000);
    assert_eq!(form(&rules(100, 100, 4), &alike).len(), 100);
}

#[derive(Debug, Clone)]
struct World {
    rules: Rules,
    pool: Vec<Waiting>,
}

/// Small worlds in which every rule counts.
fn worlds() -> impl Strategy<Value = World> {
    let group = (1usize..4, 0u64..12_000, 0i32..400, 0u8..2, 0u8..4, any::<bool>());
    let shape = (1usize..3, 1usize..4, 0usize..3, any::<bool>(), any::<bool>());
    (proptest::collection::vec(group, 0..8), shape, any::<u64>()).prop_map(|(groups, shape, seed)| {
        let (teams, team_size, spare, has_skill, has_key) = shape;
        let max_players = teams * team_size;
        let rules = Rules {
            min_players: max_players.saturating_sub(spare).max(1),
            max_players,
            teams,
            match_on: if has_key { vec!["mode".into()] } else { Vec::new() },
            skill: has_skill.then(|| Skill {
                property: "skill".into(),
                window: 100.0,
                widen: 20.0,
                every_ms: 1_000,
            }),
            fill_for_ms: 5_000,
        };
        let mut pool = Vec::new();
        for (no, (size, waited_ms, skill, mode, asks, complete)) in groups.into_iter().enumerate() {
            for member in 0..size {
                let query = if asks == 0 { r#"{"skill": {"max": 250}}"# } else { "{}" };
                let properties = format!(r#"{{"skill": {skill}, "mode": {mode}}}"#);
                let ticket = waiting((no * 10 + member) as u128, waited_ms, &properties, query);
                // A party that is not complete says that it is larger than what is here.
                let stated = if complete || no % 3 > 0 { size } else { size + 1 };
                let ticket = if size == 1 && stated == 1 {
                    ticket
                } else {
                    with_party(no as u128, stated, ticket)
                };
                pool.push(ticket);
            }
        }
        shuffle(&mut pool, seed);
        World { rules, pool }
    })
}

fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for place in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(place, (seed >> 33) as usize % (place + 1));
    }
}

/// Whether these may play together, said again in the plainest words.
fn is_match(rules: &Rules, members: &[&Waiting]) -> bool {
    let longest_ms = members.iter().map(|member| member.waited_ms).max().unwrap_or(0);
    let size = members.len();
    let enough = size == rules.max_players / rules.teams * rules.teams
        || (size >= rules.min_players && longest_ms >= rules.fill_for_ms);
    let skill_fits = rules.skill.as_ref().is_none_or(|skill| {
        let skills = members.iter().map(|member| member.properties.number("skill").unwrap());
        let (low, high) = skills.fold((f64::MAX, f64::MIN), |(low, high), own| (low.min(own), high.max(own)));
        high - low <= skill.window_after(longest_ms)
    });
    let accepted = members.iter().all(|asking| {
        let mut others = members.iter().filter(|other| other.ticket != asking.ticket);
        others.all(|other| {
            let same_party = asking.party.is_some() && asking.party == other.party;
            same_party || asking.query.accepts(&other.properties)
        })
    });
    let alike = members.windows(2).all(|pair| {
        let mut names = rules.match_on.iter();
        names.all(|name| pair[0].properties.text(name) == pair[1].properties.text(name))
    });
    enough && size <= rules.max_players && size.is_multiple_of(rules.teams) && skill_fits && accepted && alike
}

/// The ways of putting groups of these sizes into teams of this size.
fn splits(sizes: &[usize], teams: &mut [usize]) -> bool {
    let Some((size, rest)) = sizes.split_first() else {
        return teams.iter().all(|free| *free == 0);
    };
    (0..teams.len()).any(|team| {
        if teams[team] < *size {
            return false;
        }
        teams[team] -= size;
        let split = splits(rest, teams);
        teams[team] += size;
        split
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_match_keeps_every_rule(World { rules, pool } in worlds()) {
        let formed = form(&rules, &pool);
        let mut seen = std::collections::BTreeSet::new();
        for formed in &formed {
            let members: Vec<&Waiting> = formed.members.iter().map(|(place, _)| &pool[*place]).collect();
            prop_assert!(is_match(&rules, &members));
            for (place, _) in &formed.members {
                prop_assert!(seen.insert(*place), "a ticket is in one match only");
                if let Some((party, size)) = pool[*place].party {
                    let whole = formed.members.iter().filter(|(other, _)| {
                        pool[*other].party.is_some_and(|(other, _)| other == party)
                    });
                    let teams: std::collections::BTreeSet<u32> = whole.clone().map(|(_, team)| *team).collect();
                    prop_assert_eq!((whole.count(), teams.len()), (size, 1), "parties are whole");
                }
            }
            let mut sizes = vec![0; rules.teams];
            formed.members.iter().for_each(|(_, team)| sizes[*team as usize] += 1);
            prop_assert!(sizes.iter().all(|size| *size == sizes[0]), "teams are even: {:?}", sizes);
        }
    }

    #[test]
    fn nobody_waits_who_could_play(World { rules, pool } in worlds()) {
        let matched = places(&form(&rules, &pool)).concat();
        let mut groups: BTreeMap<u128, Vec<&Waiting>> = BTreeMap::new();
        for (place, waiting) in pool.iter().enumerate() {
            if !matched.contains(&place) {
                groups.entry(waiting.ticket.to_u128() / 10).or_default().push(waiting);
            }
        }
        let whole = |members: &Vec<&Waiting>| members[0].party.is_none_or(|(_, size)| size == members.len());
        let groups: Vec<Vec<&Waiting>> = groups.into_values().filter(whole).collect();
        for some in 1u32..1 << groups.len() {
            let chosen: Vec<&Vec<&Waiting>> = (0..groups.len()).filter(|no| some >> no & 1 == 1).map(|no| &groups[no]).collect();
            let members: Vec<&Waiting> = chosen.iter().flat_map(|group| group.iter().copied()).collect();
            if is_match(&rules, &members) {
                let sizes: Vec<usize> = chosen.iter().map(|group| group.len()).collect();
                let mut teams = vec![members.len() / rules.teams; rules.teams];
                prop_assert!(!splits(&sizes, &mut teams), "these wait and fit: {:?}", members);
            }
        }
    }

    #[test]
    fn the_same_pool_gives_the_same_matches_in_whatever_order_it_is_read(World { rules, pool } in worlds(), seed in any::<u64>()) {
        let tickets = |pool: &[Waiting]| -> Vec<Vec<(TicketId, u32)>> {
            let formed = form(&rules, pool);
            let members = |formed: &Formed| formed.members.iter().map(|(place, team)| (pool[*place].ticket, *team)).collect();
            formed.iter().map(members).collect()
        };
        let mut other = pool.clone();
        shuffle(&mut other, seed);
        prop_assert_eq!(tickets(&pool), tickets(&other));
    }

    #[test]
    fn a_window_only_grows_by_waiting(window in 0.0..500.0f64, widen in 0.0..100.0f64, every_ms in 0u64..10_000, a in 0u64..100_000, b in 0u64..100_000) {
        let skill = Skill { property: "skill".into(), window, widen, every_ms };
        prop_assert!(skill.window_after(a.min(b)) <= skill.window_after(a.max(b)));
        prop_assert!(skill.window_after(0) == window);
    }

    #[test]
    fn two_who_fit_still_fit_when_they_have_waited_longer(a in 0i32..1_000, b in 0i32..1_000, waited in (0u64..20_000, 0u64..20_000), longer in (0u64..20_000, 0u64..20_000)) {
        let rules = by_skill(100.0, 25.0);
        let pool = |wa, wb| [skilled(1, wa, a), skilled(2, wb, b)];
        if !form(&rules, &pool(waited.0, waited.1)).is_empty() {
            prop_assert_eq!(form(&rules, &pool(waited.0 + longer.0, waited.1 + longer.1)).len(), 1);
        }
    }
}
