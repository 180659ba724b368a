//! Tickets and parties: one ticket a player and queue, claims that take all of a match or none of it, what is given back, and
//! parties that stay whole.

use rookery_protocol::{PartyId, TicketId};

use super::*;

suite! {
    a_player_waits_once_in_a_queue,
    a_queue_takes_so_many_and_no_more,
    a_party_queues_whole_or_not_at_all,
    claimed_tickets_and_their_match_are_one_thing,
    of_two_claims_of_one_ticket_one_gets_it,
    only_those_who_were_here_of_late_are_in_the_pool,
    who_leaves_takes_the_waiting_of_the_party_along,
    tickets_of_a_lost_match_wait_again_as_long_as_before,
    tickets_expire_and_are_forgotten_when_they_were_heard,
    who_has_come_needs_the_ticket_no_more,
    a_party_has_a_code_a_leader_and_so_many_places,
    the_next_in_the_order_of_joining_leads,
    who_is_away_for_long_leaves_the_party,
}

const SECOND: u64 = 1_000;

fn ticket() -> NewTicket {
    // In the order in which they are made, as a node's clock makes them.
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let unix_ms = 1_700_000_000_000 + MADE.fetch_add(1, Ordering::Relaxed) as u64;
    NewTicket {
        id: TicketId::from_parts(unix_ms, rand::random()),
        player: player_id(),
        name: "Ana".into(),
    }
}

fn alone(queue: &str, ticket: &NewTicket) -> NewTickets {
    NewTickets {
        queue: queue.into(),
        party: None,
        properties: r#"{"skill": 7}"#.into(),
        query: "{}".into(),
        players: vec![ticket.clone()],
        waiting_max: 1_000,
        expires_ms: 60 * SECOND,
    }
}

async fn wait_in(store: &Store, queue: &str) -> NewTicket {
    let ticket = ticket();
    let joined = store.join_queue(alone(queue, &ticket)).await.unwrap();
    assert_eq!(joined, QueueOutcome::Joined);
    ticket
}

fn claim(tickets: &[&NewTicket]) -> Claim {
    let players = tickets.iter().map(|ticket| FormedPlayer {
        player: ticket.player,
        name: ticket.name.clone(),
        team: 0,
    });
    Claim {
        game_match: new_match(),
        tickets: tickets.iter().map(|ticket| (ticket.id, 0)).collect(),
        players: players.collect(),
    }
}

async fn pool(store: &Store, queue: &str) -> Vec<TicketId> {
    let pool = store.ticket_pool(queue, 15 * SECOND, 100).await.unwrap();
    pool.into_iter().map(|row| row.id).collect()
}

async fn standing(store: &Store, ticket: &NewTicket) -> Option<Standing> {
    let row = store.read_ticket(ticket.id, ticket.player).await.unwrap();
    row.map(|row| row.standing)
}

/// Claims these two, and returns their match.
async fn matched(store: &Store, a: &NewTicket, b: &NewTicket) -> MatchId {
    let claim = claim(&[a, b]);
    let target = claim.game_match.id;
    let claimed = store.claim_tickets("duel", &[claim]).await.unwrap();
    assert!(claimed[0].is_some());
    target
}

async fn a_player_waits_once_in_a_queue(place: &Place) {
    let store = place.open().await;
    let first = wait_in(&store, "duel").await;
    let again = NewTicket {
        id: ticket().id,
        ..first.clone()
    };
    let waiting = QueueOutcome::AlreadyWaiting {
        player: first.player,
        ticket: first.id,
    };
    assert_eq!(store.join_queue(alone("duel", &again)).await.unwrap(), waiting);
    assert_eq!(
        store.join_queue(alone("arena", &again)).await.unwrap(),
        QueueOutcome::Joined
    );
    let rows = store.tickets_of(&[first.player, player_id()]).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.queue.as_str()).collect::<Vec<_>>(),
        ["duel", "arena"]
    );
    // Matched counts too.
    let other = wait_in(&store, "duel").await;
    matched(&store, &first, &other).await;
    let again = NewTicket {
        id: ticket().id,
        ..first.clone()
    };
    assert_eq!(store.join_queue(alone("duel", &again)).await.unwrap(), waiting);
    // Of a crowd of the same player one gets in.
    let ana = ticket();
    let crowd = (0..20).map(|_| {
        let (store, id) = (store.clone(), ticket().id);
        let new = alone("crowd", &NewTicket { id, ..ana.clone() });
        async move { store.join_queue(new).await.unwrap() }
    });
    let joined = all(crowd).await;
    assert_eq!(
        joined.iter().filter(|joined| **joined == QueueOutcome::Joined).count(),
        1
    );
}

async fn a_queue_takes_so_many_and_no_more(place: &Place) {
    let store = place.open().await;
    let crowd = (0..30).map(|no| {
        let store = store.clone();
        let queue = if no < 10 { "other" } else { "duel" };
        let new = NewTickets {
            waiting_max: 12,
            ..alone(queue, &ticket())
        };
        async move { store.join_queue(new).await.unwrap() }
    });
    let joined = all(crowd).await;
    assert_eq!(joined.iter().filter(|joined| **joined == QueueOutcome::Full).count(), 8);
    let depths = store.queue_depths().await.unwrap();
    let depths: Vec<_> = depths.iter().map(|row| (row.queue.as_str(), row.waiting)).collect();
    assert_eq!(depths, [("duel", 12), ("other", 10)]);
}

async fn a_party_queues_whole_or_not_at_all(place: &Place) {
    let store = place.open().await;
    let waits = wait_in(&store, "duel").await;
    let friend = ticket();
    let second = NewTicket {
        id: ticket().id,
        ..waits.clone()
    };
    let party = NewTickets {
        party: Some(PartyId::from_u128(9)),
        players: vec![friend.clone(), second],
        ..alone("duel", &friend)
    };
    let waiting = QueueOutcome::AlreadyWaiting {
        player: waits.player,
        ticket: waits.id,
    };
    assert_eq!(store.join_queue(party.clone()).await.unwrap(), waiting);
    assert_eq!(pool(&store, "duel").await, [waits.id]);
    store.leave_queue(waits.id, waits.player).await.unwrap().unwrap();
    assert_eq!(store.join_queue(party.clone()).await.unwrap(), QueueOutcome::Joined);
    let rows = store.ticket_pool("duel", 15 * SECOND, 100).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| (row.party, row.party_size) == (party.party, 2)));
}

async fn claimed_tickets_and_their_match_are_one_thing(place: &Place) {
    let store = place.open().await;
    let (ana, ben, cleo, dan) = (
        wait_in(&store, "duel").await,
        wait_in(&store, "duel").await,
        wait_in(&store, "duel").await,
        wait_in(&store, "duel").await,
    );
    store.leave_queue(dan.id, dan.player).await.unwrap().unwrap();
    let (gone, whole) = (claim(&[&cleo, &dan]), claim(&[&ana, &ben]));
    let claimed = store
        .claim_tickets("duel", &[gone.clone(), whole.clone()])
        .await
        .unwrap();
    assert_eq!(claimed[0], None, "one of them had left");
    assert_eq!(claimed[1].as_ref().unwrap().waited_ms.len(), 2);
    assert_eq!(store.read_match(gone.game_match.id).await.unwrap(), None);
    assert_eq!(row(&store, whole.game_match.id).await.status, MatchStatus::Starting);
    assert_eq!(pool(&store, "duel").await, [cleo.id]);
    let expected = Standing::Matched {
        target: whole.game_match.id,
        team: 0,
        players: whole.players,
        status: Some(MatchStatus::Starting),
    };
    assert_eq!(standing(&store, &ana).await, Some(expected));
    let row = store.read_ticket(ana.id, ana.player).await.unwrap().unwrap();
    assert!(row.estimate_ms.is_some_and(|estimate_ms| estimate_ms < 60 * SECOND));
    assert_eq!(
        store.read_ticket(ana.id, ben.player).await.unwrap(),
        None,
        "a ticket is its player's"
    );
}

async fn of_two_claims_of_one_ticket_one_gets_it(place: &Place) {
    let store = place.open().await;
    let other = place.open().await;
    for _ in 0..10 {
        let (ana, ben, cleo) = (
            wait_in(&store, "duel").await,
            wait_in(&store, "duel").await,
            wait_in(&store, "duel").await,
        );
        let (one, two) = (claim(&[&ana, &ben]), claim(&[&cleo, &ben]));
        let claims = [(store.clone(), one), (other.clone(), two)].map(|(store, claim)| async move {
            let claimed = store.claim_tickets("duel", &[claim]).await.unwrap();
            claimed[0].is_some()
        });
        let won = all(claims).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let left = pool(&store, "duel").await;
        assert_eq!(left.len(), 1);
        let rest = if won[0] { cleo } else { ana };
        assert_eq!(left, [rest.id]);
        store.leave_queue(rest.id, rest.player).await.unwrap().unwrap();
    }
}

async fn only_those_who_were_here_of_late_are_in_the_pool(place: &Place) {
    let store = place.open().await;
    let (ana, ben) = (wait_in(&store, "duel").await, wait_in(&store, "duel").await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.see_tickets(&[ben.player]).await.unwrap();
    let pool = store.ticket_pool("duel", 250, 100).await.unwrap();
    assert_eq!(pool.iter().map(|row| row.id).collect::<Vec<_>>(), [ben.id]);
    assert_eq!(standing(&store, &ana).await, Some(Standing::Waiting));
}

async fn who_leaves_takes_the_waiting_of_the_party_along(place: &Place) {
    let store = place.open().await;
    let (ana, ben) = (ticket(), ticket());
    let party = NewTickets {
        party: Some(PartyId::from_u128(9)),
        players: vec![ana.clone(), ben.clone()],
        ..alone("duel", &ana)
    };
    store.join_queue(party).await.unwrap();
    assert_eq!(
        store.leave_queue(ben.id, ana.player).await.unwrap(),
        None,
        "it is not hers"
    );
    let concerned = store.leave_queue(ben.id, ben.player).await.unwrap();
    assert_eq!(concerned, Some(vec![ben.player, ana.player]));
    assert_eq!(standing(&store, &ana).await, Some(Standing::Expired));
    assert_eq!(standing(&store, &ben).await, None);
    assert_eq!(store.leave_queue(ben.id, ben.player).await.unwrap(), None);
}

async fn tickets_of_a_lost_match_wait_again_as_long_as_before(place: &Place) {
    let store = place.open().await;
    let (ana, ben) = (wait_in(&store, "duel").await, wait_in(&store, "duel").await);
    let lost = matched(&store, &ana, &ben).await;
    assert_eq!(store.sweep_tickets(Some("duel"), SECOND, 0).await.unwrap(), []);
    store
        .finish_match(Finish {
            status: FinalStatus::Failed,
            ..end_of(lost, 1)
        })
        .await
        .unwrap();
    assert_eq!(store.sweep_tickets(Some("other"), SECOND, 0).await.unwrap(), []);
    let swept = store.sweep_tickets(Some("duel"), SECOND, 0).await.unwrap();
    assert_eq!(swept.len(), 2);
    assert!(swept.iter().all(|(_, what)| *what == Swept::Returned));
    assert_eq!(standing(&store, &ana).await, Some(Standing::Waiting));
    assert_eq!(pool(&store, "duel").await, [ana.id, ben.id]);
    // One had come before the match was lost: the other one is not tied to it.
    let lost = matched(&store, &ana, &ben).await;
    store.use_tickets(&[(ana.player, lost)]).await.unwrap();
    store
        .finish_match(Finish {
            status: FinalStatus::Lost,
            ..end_of(lost, 1)
        })
        .await
        .unwrap();
    store.sweep_tickets(None, SECOND, 0).await.unwrap();
    let rows = store.ticket_pool("duel", 15 * SECOND, 100).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.id, row.party_size)).collect::<Vec<_>>(),
        [(ben.id, 1)]
    );
}

async fn tickets_expire_and_are_forgotten_when_they_were_heard(place: &Place) {
    let store = place.open().await;
    let soon = ticket();
    let new = NewTickets {
        expires_ms: 50,
        ..alone("duel", &soon)
    };
    store.join_queue(new).await.unwrap();
    let (ana, ben) = (wait_in(&store, "duel").await, wait_in(&store, "duel").await);
    let target = matched(&store, &ana, &ben).await;
    store.set_running(target, 1, &node("a", 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pool(&store, "duel").await, []);
    // What is matched waits for its players as long as their seats are kept.
    let swept = store.sweep_tickets(Some("duel"), 60 * SECOND, 0).await.unwrap();
    assert_eq!(swept, [(soon.player, Swept::Expired)]);
    assert_eq!(store.sweep_tickets(Some("duel"), 60 * SECOND, 0).await.unwrap(), []);
    assert_eq!(store.sweep_tickets(Some("duel"), 50, 0).await.unwrap().len(), 2);
    assert_eq!(standing(&store, &ana).await, Some(Standing::Expired));
    // Expired, the player may queue again, and the notice stands until it was heard.
    let again = NewTicket {
        id: ticket().id,
        ..ana.clone()
    };
    assert_eq!(
        store.join_queue(alone("duel", &again)).await.unwrap(),
        QueueOutcome::Joined
    );
    store.sweep_old_tickets().await.unwrap();
    assert_eq!(store.tickets_of(&[ana.player]).await.unwrap().len(), 2);
    store.forget_tickets(&[ana.id, again.id]).await.unwrap();
    assert_eq!(standing(&store, &ana).await, None);
    assert_eq!(standing(&store, &again).await, Some(Standing::Waiting));
}

async fn who_has_come_needs_the_ticket_no_more(place: &Place) {
    let store = place.open().await;
    let (ana, ben) = (wait_in(&store, "duel").await, wait_in(&store, "duel").await);
    let target = matched(&store, &ana, &ben).await;
    store
        .use_tickets(&[(ana.player, target), (ben.player, match_id())])
        .await
        .unwrap();
    assert_eq!(standing(&store, &ana).await, None);
    assert!(matches!(standing(&store, &ben).await, Some(Standing::Matched { .. })));
    // Ben sits there, as his match has noted; the node that was to say that the ticket is used died before.
    store.note_players(&[(target, ben.player)]).await.unwrap();
    let end = Finish {
        status: FinalStatus::Lost,
        ..end_of(target, 1)
    };
    store.finish_match(end).await.unwrap();
    assert_eq!(store.sweep_tickets(Some("duel"), SECOND, 0).await.unwrap(), []);
    assert_eq!(standing(&store, &ben).await, None, "neither expired nor given back");
}

async fn create_party(store: &Store, player: PlayerId, code: &str) -> PartyRow {
    let id = PartyId::from_parts(1_700_000_000_000, rand::random());
    store.create_party(id, code, player, "Ana").await.unwrap().unwrap()
}

async fn join_party(store: &Store, code: &str, player: PlayerId) -> PartyRow {
    match store.join_party(code, player, "Ben", 3).await.unwrap() {
        PartyOutcome::Joined { party, .. } => party,
        refused => panic!("{refused:?}"),
    }
}

async fn a_party_has_a_code_a_leader_and_so_many_places(place: &Place) {
    let store = place.open().await;
    let (ana, ben, cleo, dan) = (player_id(), player_id(), player_id(), player_id());
    let party = create_party(&store, ana, "ABCD").await;
    assert_eq!((party.leader, party.members.len(), party.version), (ana, 1, 1));
    // Asked again, it is the same party; another's code is not taken.
    assert_eq!(create_party(&store, ana, "WXYZ").await, party);
    let other = PartyId::from_u128(5);
    assert_eq!(store.create_party(other, "ABCD", ben, "Ben").await.unwrap(), None);
    assert_eq!(
        store.join_party("NONE", ben, "Ben", 3).await.unwrap(),
        PartyOutcome::NotFound
    );
    let crowd = [ben, cleo, dan].map(|player| {
        let store = store.clone();
        async move { store.join_party("abcd", player, "Ben", 3).await.unwrap() }
    });
    let joined = all(crowd).await;
    assert_eq!(joined.iter().filter(|joined| **joined == PartyOutcome::Full).count(), 1);
    let party = store.find_party(&party.id.to_string()).await.unwrap().unwrap();
    assert_eq!((party.members.len(), party.version), (3, 3));
    let first = party.members[1].player;
    assert_eq!(join_party(&store, "ABCD", first).await, party, "who is in it is in it");
    // Joining another party is leaving this one.
    let elsewhere = create_party(&store, player_id(), "OTHER").await;
    let joined = store.join_party("other", first, "Ben", 3).await.unwrap();
    let PartyOutcome::Joined { party: other, left } = joined else {
        panic!("{joined:?}")
    };
    assert_eq!((other.id, other.members.len()), (elsewhere.id, 2));
    assert_eq!(left.unwrap().party.members.len(), 2);
    let mut parties = store.parties_of(&[ana, first, player_id()]).await.unwrap();
    parties.sort_by_key(|row| row.id != party.id);
    assert_eq!(
        parties.iter().map(|row| row.id).collect::<Vec<_>>(),
        [party.id, elsewhere.id]
    );
}

async fn the_next_in_the_order_of_joining_leads(place: &Place) {
    let store = place.open().await;
    let (ana, ben, cleo) = (ticket(), ticket(), ticket());
    let party = create_party(&store, ana.player, "ABCD").await;
    join_party(&store, "ABCD", ben.player).await;
    join_party(&store, "ABCD", cleo.player).await;
    let queued = NewTickets {
        party: Some(party.id),
        players: vec![ana.clone(), ben.clone(), cleo.clone()],
        ..alone("duel", &ana)
    };
    assert_eq!(store.join_queue(queued).await.unwrap(), QueueOutcome::Joined);
    let left = store.leave_party(ana.player).await.unwrap().unwrap();
    assert_eq!((left.party.leader, left.players.len()), (ben.player, 3));
    assert_eq!(pool(&store, "duel").await, [], "the party is not whole any more");
    assert_eq!(standing(&store, &cleo).await, Some(Standing::Expired));
    assert_eq!(store.leave_party(ana.player).await.unwrap(), None);
    assert_eq!(store.kick_from_party(party.id, ana.player).await.unwrap(), None);
    let kicked = store.kick_from_party(party.id, cleo.player).await.unwrap().unwrap();
    assert_eq!(kicked.party.members.len(), 1);
    let last = store.leave_party(ben.player).await.unwrap().unwrap();
    assert_eq!(last.party.members, []);
    assert_eq!(store.find_party("ABCD").await.unwrap(), None, "nobody is in it");
}

async fn who_is_away_for_long_leaves_the_party(place: &Place) {
    let store = place.open().await;
    let (ana, ben) = (player_id(), player_id());
    let party = create_party(&store, ana, "ABCD").await;
    join_party(&store, "ABCD", ben).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.see_party_members(&[ben]).await.unwrap();
    assert_eq!(store.sweep_parties(60 * SECOND).await.unwrap(), []);
    let left = store.sweep_parties(250).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].party.id, left[0].party.leader), (party.id, ben));
}
