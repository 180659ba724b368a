//! How the players of a run come together: accounts, connections, sessions, one match a room, everybody seated. Against the floor,
//! which has none of these, a room is a path.

use anyhow::Context;

use super::swarm::{self, Swarm, Target};
use super::traffic::{Audience, Plan};
use super::wire::{Request, Wire};
use super::{Common, accounts};

/// Seats connection `i` in room `i / room_size` and returns the rooms' match ids (none against the floor).
pub(crate) fn enter(swarm: &mut Swarm, common: &Common, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let targets = common.targets()?;
    let Some(wire) = common.wire() else {
        let path = |index: usize| match plan.audience {
            Audience::Sender => "/echo".to_owned(),
            Audience::Room => format!("/room/{}", index / plan.room_size),
        };
        swarm.connect(&targets, plan.connections, None, path)?;
        return Ok(Vec::new());
    };
    open(swarm, wire, &targets, plan.connections)?;
    let hosts: Vec<usize> = (0..plan.connections).step_by(plan.room_size).collect();
    let rooms = create(swarm, wire, &plan.module, hosts)?;
    let join = |index: usize| {
        let target = Some(rooms[index / plan.room_size].as_str());
        wire.request(&Request {
            kind: "match.join",
            id: 3,
            target,
            ..Request::default()
        })
    };
    swarm
        .ask(wire, 0..plan.connections, join, |_, _| Ok(()))
        .context("cannot join the matches")?;
    Ok(rooms)
}

/// Makes `count` guests and opens a session for each, after the connections that the swarm has already.
pub(crate) fn open(swarm: &mut Swarm, wire: Wire, targets: &[Target], count: usize) -> anyhow::Result<()> {
    let tokens = accounts::guests(targets, count)?;
    swarm.connect(targets, count, Some(wire.subprotocol()), |_| "/v1/ws".to_owned())?;
    swarm::open_sessions(swarm, wire, 0, &tokens)
}

/// Creates one match for each entry of `hosts`, on that connection, and returns the ids in the order of `hosts`.
pub(crate) fn create(swarm: &mut Swarm, wire: Wire, module: &str, hosts: Vec<usize>) -> anyhow::Result<Vec<String>> {
    let mut created: Vec<(usize, String)> = Vec::with_capacity(hosts.len());
    let create = |_| {
        wire.request(&Request {
            kind: "match.create",
            id: 2,
            module: Some(module),
            ..Request::default()
        })
    };
    swarm
        .ask(wire, hosts, create, |index, answer| {
            let id = answer
                .target
                .with_context(|| format!("{} names no match", answer.kind))?;
            created.push((index, id.to_owned()));
            Ok(())
        })
        .with_context(|| format!("cannot create matches of module {module}"))?;
    created.sort();
    Ok(created.into_iter().map(|(_, id)| id).collect())
}
