#!/usr/bin/env python3
# Part of Rushroom; licensed like it (Apache-2.0).
"""The replicated half of the reference model of the clock: `Shard`, pure, integers only. See clock_model.py."""
import collections
import hashlib
import random
from dataclasses import dataclass, field

PLANTS = {
    "clamp": "the reading is clamped at the hold bound instead of re-anchored",
    "look_by_proposer": "only the proposer's looks are bounded by step_ms, a socket's reading isn't",
    "decode_gap": "a command is stamped before decoding and enters its lane after it",
    "lanes_first": "the proposer looks at the lanes, then reads `at`",
    "same_office": "after a rejected proposal the office goes on without a new base and grace",
    "n_goes_on": "as same_office, and numbers go on after the rejected one",
    "base_for_all": "a new office stamps and promises from `top` even for a lane that was behind it",
    "elapsed_in_grace": "`elapsed` counts from the taking of office, not from the end of the grace",
    "held_each": "a hold is declared only when one single re-anchor is over declare_ms",
    "held_from_apply": "a new office counts the hold from applying the entry that holds `top`, not from receiving it",
    "start_once": "a scheduled start is proposed when wall time passes it, not as long as it has passed",
    "pending_dup_body": "another body is answered dup_body from the pending map",
    "busy_verdict": "busy and not judged are final for the client",
    "refusals_per_bidder": "the bound on logged refusals is per bidder over all auctions",
    "refusals_evict": "a logged refusal over the bound is forgotten and its id judged anew",
    "fair_only": "lanes whose close is due get no turns before the others",
    "own_bound": "a lane's bound looks at this lane only (its depth and the age of its oldest)",
    "no_void": "an entry that doesn't follow is applied all the same",
    "close_at_now": "timers are anchored at the entry's `at`",
    "now_for_all": "a beat ignores `behind`",
}


@dataclass(frozen=True)
class Params:
    hold_ms: int = 200
    step_ms: int = 50
    grace_ms: int = 150
    beat_ms: int = 100
    look_ms: int = 5
    lane_ms: int = 40          # all that waits in a shard drains in this time
    lane_depth: int = 64       # only for the plant own_bound
    window: int = 32           # commands in flight
    entry_max: int = 16
    declare_ms: int = 50
    refusals_max: int = 3      # logged refusals per (auction, bidder)
    lat: tuple = (2, 25)       # commit latency without faults
    resend_ms: int = 60        # an edge's wait for an answer
    learn: tuple = (2, 60)     # an edge learns of a new office


P = Params()


# ---------------------------------------------------------------- the replicated state machine
@dataclass(frozen=True)
class Cmd:
    auction: int
    kind: str                  # bid max pause resume extend cancel start
    arg: int = 0
    bidder: int = 0
    id: int = 0                # 0: the leader's own command, not remembered

    @property
    def key(self):
        return (self.auction, self.bidder, self.id)

    @property
    def body(self):
        return (self.kind, self.arg)


@dataclass(frozen=True)
class Entry:
    office: tuple              # (term, turn)
    n: int                     # 0: the marker that opens an office
    at: int = 0
    behind: tuple = ()         # (auction, oldest waiting arrival)
    commands: tuple = ()       # (arrived, command)
    holds: tuple = ()          # (stamp at which the clock stood, ms)


def increment(price):
    return 1 if price < 50 else 5 if price < 500 else 25


class Auction:
    """One auction: phase, price, deadline, own watermark, history, remembered ids."""

    def __init__(self, i, rng):
        self.i, self.phase, self.version = i, "scheduled", 1
        self.start_wall = rng.randrange(0, 900)
        self.duration = rng.randrange(400, 2600)
        self.start_price, self.reserve = rng.randrange(1, 40), rng.choice((0, 60))
        self.mode = rng.choice(("rush", "rush", "soft", "both", "fixed"))
        self.cut_max, self.cut_per = 900_000, rng.choice((300_000, 2_000_000, 8_000_000))
        self.floor, self.window = rng.choice((100, 300)), rng.choice((80, 200))
        self.reset_to, self.ext_max = self.window + rng.choice((0, 100)), rng.randrange(1, 6)
        self.price, self.leader, self.maximum, self.ext = self.start_price, None, 0, 0
        self.ends_at = self.left = self.resume_at = None
        self.wm, self.holds = 0, []
        self.clock_low = 0     # newest anchor, for the check `monotone`
        self.fell = 0
        self.seq, self.hash, self.events = 0, b"", []
        self.ids = {}          # (bidder, id) -> (body, verdict)
        self.refused = collections.defaultdict(list)

    def due(self):
        return self.ends_at if self.phase == "live" else self.resume_at if self.phase == "paused" else None

    def emit(self, anchor, *what):
        self.fell += anchor < self.clock_low
        self.clock_low = max(self.clock_low, anchor)
        self.seq += 1
        ev = (self.seq, anchor) + what
        self.hash = hashlib.blake2b(self.hash + repr(ev).encode(), digest_size=8).digest()
        self.events.append(ev)

    def run(self, upto, at=None):
        """Timers up to `upto`, in due order, each anchored at its due stamp; a hold comes after all else at its stamp."""
        while True:
            d = self.due()
            if self.holds and self.holds[0][0] < upto and (d is None or d > self.holds[0][0]):
                h, lost = self.holds.pop(0)
                if self.phase in ("live", "paused") and self.live_at < h:
                    self.emit(h, "held", lost)
                continue
            if d is None or d > upto:
                return
            anchor = d if at is None else at
            if self.phase == "live":
                self.close(anchor, "sold" if self.leader is not None and self.price >= self.reserve else "unsold")
            else:
                self.resume(anchor)

    def close(self, anchor, outcome):
        self.phase, self.closed_at, self.ends_at, self.resume_at = "closed", anchor, None, None
        self.emit(anchor, "close", outcome, self.price, self.leader)

    def resume(self, anchor):
        self.phase, self.ends_at, self.left, self.resume_at = "live", anchor + self.left, None, None
        self.emit(anchor, "resume", self.ends_at)

    def early(self, c):
        """A refusal by absorbing facts only, or None."""
        if c.kind not in ("bid", "max"):
            return None
        if self.phase == "closed":
            return "closed"
        if self.phase in ("live", "paused") and c.bidder != self.leader and c.arg < self.least():
            return "low"
        return None

    def least(self):
        return self.start_price if self.leader is None else self.price + increment(self.price)

    def judge(self, arrived, c):
        k, live = c.kind, self.phase == "live"
        if k == "start":
            if self.phase != "scheduled" or c.arg != self.version:
                return "wrong_phase"
            self.phase, self.ends_at, self.live_at = "live", arrived + self.duration, arrived
            self.emit(arrived, "live", self.ends_at)
            return "accepted"
        if self.phase == "closed":
            return "closed"
        if k == "cancel":
            self.close(arrived, "cancelled")
        elif k == "pause" and live:
            self.left = self.ends_at - arrived
            self.phase, self.ends_at = "paused", None
            self.resume_at = arrived + c.arg
            self.emit(arrived, "pause", self.left, self.resume_at)
        elif k == "resume" and self.phase == "paused":
            self.resume(arrived)
        elif k == "extend" and live:
            self.ends_at += c.arg
            self.emit(arrived, "extend", self.ends_at)
        elif k in ("bid", "max"):
            return self.bid(arrived, c) if live else self.phase
        else:
            return "wrong_phase"
        return "accepted"

    def bid(self, arrived, c):
        before = self.price
        if c.bidder == self.leader:
            if c.kind != "max" or c.arg <= self.maximum:
                return "leading"
            self.maximum = c.arg
            self.emit(arrived, "raise", c.bidder)
            return "accepted"
        if c.arg < self.least():
            return "low"
        if self.leader is not None and c.arg <= self.maximum:
            self.price = min(self.maximum, c.arg + increment(c.arg))
        else:
            least = self.least() if self.leader is None else max(self.least(), self.maximum + increment(self.maximum))
            self.price = c.arg if c.kind == "bid" else min(c.arg, least)
            self.leader, self.maximum = c.bidder, c.arg
        left = self.ends_at - arrived
        if self.mode in ("rush", "both"):
            cut = min(self.cut_max, self.cut_per * (self.price - before) // max(before, 1))
            left = max(left - left * cut // 1_000_000, min(left, self.floor))
        if self.mode in ("soft", "both") and left < self.window and self.ext < self.ext_max and left < self.reset_to:
            left, self.ext = self.reset_to, self.ext + 1
        self.ends_at = arrived + left
        self.emit(arrived, "bid", c.bidder, c.kind, self.price, self.leader, self.ends_at)
        return "accepted"


class Shard:
    """All auctions of a shard, and `apply`."""

    def __init__(self, auctions, seed, plants):
        rng = random.Random(f"shard {seed}")
        self.auctions = [Auction(i, rng) for i in range(auctions)]
        self.top, self.office, self.n = 0, (0, 0), 0
        self.clamped, self.back, self.plants = 0, 0, plants
        self.refused = collections.defaultdict(list)
        self.accepts = collections.Counter()

    def digest(self):
        return (self.top, self.office, self.n, self.refused.__repr__()) + tuple(
            (a.hash, a.phase, a.ends_at, a.wm, sorted(a.ids.items())) for a in self.auctions)

    def apply(self, e):
        """The verdicts of the entry's commands, or None where the entry is void."""
        if e.n == 0:
            self.office, self.n = max(self.office, e.office), 0 if e.office > self.office else self.n
            return []
        follows = e.office == self.office and e.n == self.n + 1
        if not follows and "no_void" not in self.plants:
            return None
        self.n = e.n
        self.back += e.at < self.top
        out, behind = [], dict(e.behind)
        at = e.at if "close_at_now" in self.plants else None
        for a in self.auctions:
            a.holds.extend(e.holds)
        for arrived, c in e.commands:
            a = self.auctions[c.auction]
            if not a.wm <= arrived <= e.at:
                self.clamped += 1
                arrived = min(max(arrived, a.wm), e.at)
            a.wm = arrived
            a.run(arrived, at)
            out.append(self.judge(a, arrived, c))
        self.top = max(self.top, e.at)
        for a in self.auctions:
            w = e.at if "now_for_all" in self.plants else min(e.at, behind.get(a.i, e.at))
            a.wm = max(a.wm, w)
            a.run(a.wm, at)
        return out

    def judge(self, a, arrived, c):
        if c.id == 0:
            return a.judge(arrived, c)
        known = a.ids.get((c.bidder, c.id))
        if known:
            return known[1] if known[0] == c.body else "dup_body"
        logged = (self.refused[c.bidder] if "refusals_per_bidder" in self.plants else a.refused[c.bidder])
        verdict = a.judge(arrived, c)
        if verdict == "accepted":
            self.accepts[c.key] += 1
        else:
            logged.append((a.i, c.bidder, c.id))
            evict = {"refusals_per_bidder", "refusals_evict"} & self.plants
            if evict and len(logged) > P.refusals_max:
                i, b, d = logged.pop(0)
                self.auctions[i].ids.pop((b, d), None)
        a.ids[(c.bidder, c.id)] = (c.body, verdict)
        return verdict
