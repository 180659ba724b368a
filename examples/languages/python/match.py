"""The conformance match in Python. What it does is said in ../README.md; the same match is written beside it in four other languages,
and ../conformance.txt says what all five answer.

An export that can refuse does it by raising `Err(reason)`. Any other exception is a trap: the node undoes the call.
"""

import struct
from typing import List, Optional

import wit_world
from componentize_py_types import Err, Ok, Result
from wit_world.imports import backfill, clock, content, log, mail, random, room, storage
from wit_world.imports.types import (
    Audience,
    Audience_Everyone,
    Audience_Except,
    Audience_One,
    Audience_Players,
    Audience_Some,
    Audience_Spectators,
    Codec,
    Durability,
    Entry,
    LeaveReason,
    Level,
    Manifest,
    Player,
    Role,
    Setup,
)

ROLES = {Role.PLAYER: "player", Role.SPECTATOR: "spectator", Role.BOT: "bot"}
REASONS = {
    LeaveReason.LEFT: "left",
    LeaveReason.TIMED_OUT: "timed-out",
    LeaveReason.KICKED: "kicked",
    LeaveReason.TRANSFERRED: "transferred",
    LeaveReason.ENDED: "ended",
}
LEVELS = {"info": Level.INFO, "warn": Level.WARN, "error": Level.ERROR}


class State:
    """What the match remembers: each match has an instance of its own."""

    count = 0
    hash = 2166136261
    # Moved by every tick: arithmetic that must give the same bits everywhere.
    clock = 0.0
    kept = ""
    held = bytearray()


class WitWorld(wit_world.WitWorld):
    def describe(self) -> Manifest:
        return Manifest(
            name="conformance",
            version="1.0.0",
            codec=Codec.BINARY,
            durability=Durability.MEMORY,
            tick_hz=10,
            min_players=1,
            max_players=4,
            max_spectators=2,
            grace_ms=5000,
            quick_play=True,
            listed=True,
            extra=[("language", "python")],
        )

    def start(self, setup: Setup) -> None:
        params = setup.params.decode()
        if params.startswith("refuse "):
            raise Err(params[7:])
        publish("match", f"{setup.match_id} {or_dash(setup.name)} {params}")
        for index, invitee in enumerate(setup.invited):
            value = f"{invitee.player_id} {invitee.team} {or_dash(invitee.party)} {invitee.properties}"
            publish(f"invited.{index}", value)
        log.write(Level.INFO, f"started at {int(clock.unix())}")
        announce(f"started {len(setup.invited)}")

    def join(self, player: Player, ctx: bytes) -> None:
        data = ctx.decode()
        if data.startswith("refuse "):
            raise Err(data[7:])
        team = "-" if player.team is None else player.team
        extra = "".join(f" {name}={value}" for name, value in player.extra)
        announce(
            f"joined {player.seat} {ROLES[player.role]} {team} {player.player_id} {player.display_name} "
            f"{len(player.extra)}{extra} {data}"
        )

    def leave(self, seat: int, reason: LeaveReason) -> None:
        announce(f"left {seat} {REASONS[reason]}")

    def message(self, seat: int, n: int, data: bytes) -> None:
        hear(data)
        reply = obey(n, data.decode())
        if reply is not None:
            room.send(Audience_One(seat), reply.encode())

    def tick(self, elapsed_ms: int) -> None:
        State.clock = State.clock * 1.0001 + elapsed_ms / 3.0
        publish("clock", halves(bits_of(State.clock)))

    def timer(self, id: int) -> None:
        announce(f"timer {id} {int(clock.now())}")

    def receive(self, sender: str, data: bytes) -> None:
        announce(f"mail {sender} {data.decode()}")

    def answer(self, request: int, outcome: Result[List[Entry], str]) -> None:
        if isinstance(outcome, Ok):
            entries = "".join(f" {entry.key} {entry.version} {entry.data.decode()}" for entry in outcome.value)
            announce(f"answer {request} ok{entries}")
        else:
            announce(f"answer {request} error {outcome.value}")

    def signal(self, topic: str, data: str) -> None:
        announce(f"signal {topic} {data}")

    def resync(self, seat: int) -> None:
        room.send(Audience_One(seat), f"view {view()}".encode())

    def save(self) -> bytes:
        return f"v1 {State.count} {State.hash} {halves(bits_of(State.clock))} {State.kept}".encode()

    def load(self, setup: Setup, saved_by: str, state: bytes) -> None:
        words = Words(state.decode())
        if words.next() != "v1":
            raise Err("not a state of this match")
        State.count = words.number()
        State.hash = words.number()
        State.clock = struct.unpack(">d", struct.pack(">II", words.number(), words.number()))[0]
        State.kept = words.rest
        publish("loaded", f"{saved_by} {State.count}")


def obey(n: int, message: str) -> Optional[str]:
    """Does what a message says, and returns what its sender is told."""
    words = Words(message)
    match words.next():
        case "send":
            room.send(audience(words.next()), words.rest.encode())
        case "publish":
            to, key = option(words.next()), words.next()
            room.publish(None if to is None else number(to), key, option_bytes(words.rest))
        case "kick":
            room.kick(words.number(), words.rest)
        case "bot":
            seat = room.add_bot(words.rest)
            return f"bot {'none' if seat is None else seat}"
        case "joinable":
            room.set_joinable(words.next() == "yes")
        case "label":
            pairs = (pair.partition("=") for pair in words.rest.split(" ") if pair)
            room.set_label([(name, value) for name, _, value in pairs])
        case "finish":
            room.finish(words.rest.encode())
        case "now":
            return f"now {int(clock.now())} {int(clock.unix())}"
        case "timer":
            clock.set_timer(words.number(), words.number())
        case "cancel":
            clock.cancel_timer(words.number())
        case "bits":
            return f"bits {halves(random.bits())}"
        case "below":
            return f"below {random.below(words.number())}"
        case "unit":
            return f"unit {int(random.unit() * 4294967296)}"
        case "log":
            level = LEVELS.get(words.next(), Level.DEBUG)
            log.write(level, words.rest)
        case "tell":
            mail.tell(words.number(), words.next(), words.rest.encode())
        case "transfer":
            mail.transfer(words.number(), words.number(), words.next(), words.rest.encode())
        case "say":
            mail.say(words.next(), words.rest)
        case "claim":
            mail.claim(words.number(), words.rest)
        case "release":
            mail.release(words.rest)
        case "read":
            storage.read(words.number(), option(words.next()), words.next(), words.rest)
        case "write":
            request, owner = words.number(), option(words.next())
            collection, key, version = words.next(), words.next(), option(words.next())
            storage.write(request, owner, collection, key, option_bytes(words.rest), version)
        case "scan":
            request, owner = words.number(), option(words.next())
            collection, limit = words.next(), words.number()
            storage.scan(request, owner, collection, words.rest, limit)
        case "content":
            content.read(words.number(), words.next(), words.rest)
        case "backfill":
            seats = option(words.next())
            if seats is None:
                backfill.close()
            else:
                backfill.open(number(seats))
        case "keep":
            State.kept = words.rest
        case "kept":
            return f"kept {view()}"
        case "number":
            return f"number {n}"
        case "trap":
            announce(words.rest)
            raise RuntimeError("a trap on demand")
        case "spend":
            rounds, value = words.number(), 1
            for round in range(rounds):
                value = (value * 31 + round) & 0xFFFFFFFF
            return f"spent {value}"
        case "grow":
            size = words.number()
            State.held = bytearray(size)
            for at in range(0, size, 4096):
                State.held[at] = 1
            return f"grown {size}"
        case _:
            return f"? {message}"
    return None


def hear(heard: bytes) -> None:
    """Takes something into the count and the hash (FNV-1a)."""
    State.count = (State.count + 1) & 0xFFFFFFFF
    for byte in heard:
        State.hash = ((State.hash ^ byte) * 16777619) & 0xFFFFFFFF


def announce(line: str) -> None:
    data = line.encode()
    hear(data)
    room.send(Audience_Everyone(), data)


def publish(key: str, value: str) -> None:
    room.publish(None, key, value.encode())


def view() -> str:
    return f"{State.count} {State.hash} {State.kept}"


class Words:
    """The words of a message, one after the other, and what is left of it."""

    def __init__(self, rest: str) -> None:
        self.rest = rest

    def next(self) -> str:
        word, _, self.rest = self.rest.partition(" ")
        return word

    def number(self) -> int:
        return number(self.next())


def number(word: str) -> int:
    digits = word.lstrip("0")
    # Python refuses to read thousands of digits.
    value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else 0
    return value if value <= 0xFFFFFFFF else 0


def option(word: str) -> Optional[str]:
    """`-` is none, `.` the empty text."""
    return None if word == "-" else "" if word == "." else word


def option_bytes(word: str) -> Optional[bytes]:
    value = option(word)
    return None if value is None else value.encode()


def or_dash(word: Optional[str]) -> str:
    return "-" if word is None else word


def audience(word: str) -> Audience:
    """`everyone`, `players`, `spectators`, `one:SEAT`, `some:SEAT,SEAT`, `except:SEAT`."""
    who, _, seats = word.partition(":")
    match who:
        case "players":
            return Audience_Players()
        case "spectators":
            return Audience_Spectators()
        case "one":
            return Audience_One(number(seats))
        case "some":
            return Audience_Some([number(seat) for seat in seats.split(",")])
        case "except":
            return Audience_Except(number(seats))
        case _:
            return Audience_Everyone()


def halves(bits: int) -> str:
    """64 bits as two decimal numbers, the high half first."""
    return f"{bits >> 32} {bits & 0xFFFFFFFF}"


def bits_of(double: float) -> int:
    return struct.unpack(">Q", struct.pack(">d", double))[0]
