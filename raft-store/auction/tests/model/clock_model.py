#!/usr/bin/env python3
# Part of Rushroom; licensed like it (Apache-2.0).
"""An executable reference model of Rushroom's consensus clock.

The model has two halves. `Shard` is the replicated state machine: pure, integers only, the same on
every replica. `Sim` drives it in simulated milliseconds with everything that the clock must survive:
an ordered log with terms and offices, proposals that commit, are rejected, or stay unknown and commit
later or never, several entries in flight, leaders that crash, freeze or are cut off, slow commits,
edges that send again with the same id, duplicates by another edge, one id with two bodies.

After each schedule `check` looks for violations of the promises, by these names:
  agree      replicas that applied the same log differ
  repack     the same committed commands, packed otherwise, give another history, verdict or hash
  monotone   a stamp goes back, the clock of an auction falls, a stamp lies outside its lane's bounds
  fast       the clock runs faster than real time
  in_time    a bid that its judge stamped before `ends_at` was refused as late (G3)
  interregnum  a bid stamped in time by the last office and sent again within the grace was refused as late
  eaten      an outage ate more than hold_ms, or a freeze more than step_ms (G5)
  given      an outage gave back more than its length + hold_ms + grace_ms (G5)
  late       without faults a due close was committed over 100 ms after its deadline (G4)
  once       a command acted twice, or was told 'refused' though it acts at any time (G6)
  hang       a live auction didn't close, a pause didn't end, a start was lost, a command was never answered
  declared   declared holds differ from the time that was really held
`--plant NAME` puts one known mistake in (see PLANTS): the check that it is for must then fail.

  python3 clock_check.py --seeds 2000
  python3 clock_check.py --seeds 300 --plant clamp
  python3 clock_check.py --seed 17 --trace
"""
import collections
import heapq
import random

from clock_shard import PLANTS, Cmd, Entry, P, Shard  # noqa: F401 (PLANTS: for whoever imports this)


# ---------------------------------------------------------------- the leader
class Clock:
    """The reading: base, then real elapsed time, never over hold_ms ahead of `top`, never over step_ms a look."""

    def __init__(self, base, mono, plants):
        self.r, self.base, self.last, self.plants = base, base, mono, plants
        self.t0 = self.stands = mono + P.grace_ms
        self.lost = 0          # held and not yet declared
        self.stood = base      # where the clock stood last
        self.holds = []        # for the next entry

    def read(self, mono, top, look=True, count=True):
        if "elapsed_in_grace" in self.plants and mono >= self.stands > self.last:
            self.last = self.stands - P.grace_ms
        d = max(0, mono - max(self.last, self.stands if "elapsed_in_grace" not in self.plants or mono < self.stands else 0))
        if mono < self.stands:
            return self.r
        cap = max(self.r, top + P.hold_ms)
        if "clamp" in self.plants:
            self.r = max(self.r, min(self.base + mono - self.t0, cap))
            return self.r
        step = min(d, P.step_ms) if look or "look_by_proposer" not in self.plants else d
        step = min(step, cap - self.r)
        if count and d > step:
            self.lost, self.stood = self.lost + d - step, self.r
            if "held_each" in self.plants and d - step <= P.declare_ms:
                self.lost -= d - step
        self.r, self.last = self.r + step, mono
        if self.lost > P.declare_ms and self.r > self.stood:
            self.holds.append((self.stood, self.lost))
            self.lost = 0
        return self.r


class Office:
    """One replica's time as leader: clock, lanes, pending map, numbered entries in flight."""

    def __init__(self, sim, node, oid, lost):
        self.sim, self.node, self.id, self.n = sim, node, oid, 0
        self.state = node.state
        self.clock = Clock(self.state.top, sim.t, sim.plants)
        self.clock.lost = lost + P.grace_ms
        self.took, self.base = sim.t, self.state.top
        self.lanes = {a.i: collections.deque() for a in self.state.auctions}
        self.turn, self.flying, self.newest = 0, 0, {}
        self.trip, self.sent_at = P.lat[1], {}     # round trip, smoothed
        self.pending, self.started = {}, set()
        self.covered, self.last_entry, self.alive = self.base, sim.t, True
        self.samples = [(sim.t, self.base)]
        self.wake = None

    def grace(self):
        return self.sim.t < self.clock.stands

    def read(self, look=True):
        busy = self.flying or any(self.lanes.values()) or any(a.due() is not None for a in self.state.auctions)
        r = self.clock.read(self.sim.t, self.state.top, look, bool(busy))
        s = self.samples
        if r < s[-1][1] or r - s[-1][1] > self.sim.t - s[-1][0]:
            self.sim.bad("fast" if r > s[-1][1] else "monotone", f"reading {s[-1]} -> {(self.sim.t, r)}")
        s.append((self.sim.t, r))
        return r

    # -- the door
    def receive(self, c, reply):
        a = self.state.auctions[c.auction]
        known = a.ids.get((c.bidder, c.id))
        if known:
            return reply(known[1] if known[0] == c.body else "dup_body")
        lane = self.lanes[c.auction]
        if c.key in self.pending:
            p = self.pending[c.key]
            if c.body == p[0]:
                return p[1].append(reply)
            return reply("dup_body" if "pending_dup_body" in self.sim.plants else "not_judged")
        if not {"refusals_per_bidder", "refusals_evict"} & self.sim.plants and len(a.refused[c.bidder]) >= P.refusals_max:
            return reply("over_bound")   # not logged, and never judged later: the bound outlives the auction's bids
        if early := a.early(c):
            self.sim.told_late(self, c, early)
            return reply(early)
        r = self.read(look=False)
        if len(lane) >= self.room(lane):
            return reply("busy")
        stamp = r
        if self.grace() and "base_for_all" not in self.sim.plants:
            stamp = max(a.wm, self.newest.get(c.auction, 0))
        self.newest[c.auction] = stamp
        self.sim.stamped[c.key].append((self.id, stamp, self.grace(), c.body))
        self.pending[c.key] = (c.body, [reply])
        if "decode_gap" in self.sim.plants:
            self.sim.after(self.sim.rng.randrange(0, 4), self.place, stamp, c)
        else:
            self.place(stamp, c)

    def room(self, lane):
        """How much a lane may hold: what is free of all that drains in lane_ms; so k hot lanes share fairly."""
        whole = max(2, self.sim.window * P.lane_ms // max(1, self.trip))
        if "own_bound" in self.sim.plants:
            return min(P.lane_depth, whole) if not lane or self.clock.r - lane[0][0] <= P.lane_ms else 0
        return max(1, whole - sum(map(len, self.lanes.values())))

    def place(self, stamp, c):
        if self.alive:
            self.lanes[c.auction].append((stamp, c))
            self.poke(1)

    def poke(self, delay):
        at = self.sim.t + delay
        if self.alive and (self.wake is None or at < self.wake):
            self.wake = at
            self.sim.at(at, self.look, at)

    # -- the proposer
    def look(self, token):
        if not self.alive or token != self.wake:
            return
        self.wake = None
        if self.sim.t < self.node.frozen:
            return self.poke(self.node.frozen - self.sim.t)
        plants = self.sim.plants
        r = self.read()
        if "lanes_first" in plants and self.sim.rng.random() < 0.3:
            seen = {i: len(q) for i, q in self.lanes.items()}
            self.wake = self.sim.t + 2
            return self.sim.at(self.wake, self.pack, self.wake, seen)
        self.own_commands(r)
        self.pack(None, None)

    def own_commands(self, r):
        for a in self.state.auctions:
            ready = a.phase == "scheduled" and a.start_wall <= self.sim.wall()
            if "start_once" in self.sim.plants and a.start_wall < self.took > 100:
                continue
            if ready and a.i not in self.started:
                self.started.add(a.i)
                self.sim.began[(self.id, a.i)] = self.sim.t
                self.newest[a.i] = r
                self.lanes[a.i].append((r, Cmd(a.i, "start", a.version)))

    def pack(self, token, seen):
        if token is not None:
            if not self.alive or token != self.wake:
                return
            self.wake = None
            if self.sim.t < self.node.frozen:
                return self.poke(self.node.frozen - self.sim.t)
        state, plants = self.state, self.sim.plants
        r = self.read()
        dues = [a.due() for a in state.auctions if a.due() is not None]
        beat = bool(dues) and (self.sim.t - self.last_entry >= P.beat_ms or any(self.covered < d <= r for d in dues))
        while True:
            taken = []
            room = min(P.entry_max, self.sim.window - self.flying)
            order = self.turns(r)
            while room > len(taken) and order:
                for i in list(order):
                    q = self.lanes[i]
                    limit = len(q) if seen is None else min(len(q), seen[i])
                    if limit and room > len(taken):
                        taken.append(q.popleft())
                        if seen is not None:
                            seen[i] -= 1
                    else:
                        order.remove(i)
            if not taken and not beat:
                break
            self.propose(r, taken, seen)
            beat = False
        self.poke(P.look_ms)

    def turns(self, r):
        """Lanes in fair turns; those whose timer is due go first, the earliest due before all."""
        k = len(self.lanes)
        self.turn = (self.turn + 1) % k
        order = [i for i in (list(range(self.turn, k)) + list(range(self.turn))) if self.lanes[i]]
        if "fair_only" in self.sim.plants:
            return order
        late = [i for i in order if (d := self.state.auctions[i].due()) is not None and d <= r]
        return sorted(late, key=lambda i: self.state.auctions[i].due()) or order

    def propose(self, at, taken, seen):
        behind = {i: q[0][0] for i, q in self.lanes.items() if q and (seen is None or seen[i])}
        if self.grace() and "base_for_all" not in self.sim.plants:
            for a in self.state.auctions:
                if a.wm < at:
                    behind[a.i] = min(a.wm, behind.get(a.i, at))
        holds, self.clock.holds = tuple(self.clock.holds), []
        self.n += 1
        self.flying += len(taken)
        self.covered, self.last_entry, self.sent_at[self.n] = at, self.sim.t, self.sim.t
        self.sim.propose(self, Entry(self.id, self.n, at, tuple(sorted(behind.items())), tuple(taken), holds))

    # -- what became of it
    def applied(self, e, verdicts):
        self.flying -= len(e.commands)
        self.trip += (self.sim.t - self.sent_at.pop(e.n, self.sim.t) - self.trip) / 8
        for k, (_, c) in enumerate(e.commands):
            if c.kind == "start":
                self.started.discard(c.auction)
            p = self.pending.pop(c.key, None) if c.id else None
            for reply in p[1] if p else ():
                reply(verdicts[k] if verdicts is not None and c.body == p[0] else "not_judged")
        self.poke(0)

    def rejected(self, e):
        """One rejected proposal ends the office; the same replica takes a new one in the same term."""
        if not self.alive:
            return
        again = self.sim.plants & {"same_office", "n_goes_on"}
        if not again:
            self.lose()
            return self.sim.take_again(self)
        if "n_goes_on" not in self.sim.plants:
            self.n = e.n - 1
        self.empty()
        self.started.clear()
        self.flying = 0

    def empty(self):
        for q in self.lanes.values():
            q.clear()
        for _, replies in self.pending.values():
            for reply in replies:
                reply("unknown")
        self.pending.clear()

    def lose(self):
        if self.alive:
            self.alive = False
            if self.node.office is self:
                self.node.office = None
            self.empty()


class Node:
    def __init__(self, i, state):
        self.i, self.state, self.applied = i, state, 0
        self.office, self.up, self.cut, self.frozen = None, True, False, 0
        self.heard = 0         # when this replica received the entry that holds `top`


# ---------------------------------------------------------------- the world around
class Sim:
    def __init__(self, seed, plants=frozenset(), kind=None):
        self.seed, self.plants, self.rng = seed, plants, random.Random(seed)
        rng = self.rng
        self.kind = kind or ("faults", "faults", "faults", "calm", "hot")[seed % 5]
        count = rng.randrange(1, 5) if self.kind != "hot" else rng.randrange(3, 13)
        self.nodes = [Node(i, Shard(count, seed, plants)) for i in range(3)]
        self.t, self.heap, self.k = 0, [], 0
        self.log, self.logged_at, self.queue = [], [], collections.deque()
        self.term, self.leader, self.turn = 0, None, 0
        self.lat, self.slow, self.noquorum, self.reject_next = P.lat, 1, False, 0
        self.violations, self.offices, self.closes = [], [], {}
        self.stamped, self.told = collections.defaultdict(list), collections.defaultdict(list)
        self.outages, self.office_now, self.open, self.retries = [], None, 0, 0
        self.received, self.began, self.live_at, self.stats, self.trace = {}, {}, {}, collections.Counter(), []
        self.faults_end, self.hot = 0, ()
        self.window = rng.choice((3, 8, P.window)) if self.kind == "faults" else P.window
        self.known, self.known_office = 0, (0, 0)

    # -- time
    def at(self, t, fn, *args):
        self.k += 1
        heapq.heappush(self.heap, (t, self.k, fn, args))

    def after(self, d, fn, *args):
        self.at(self.t + d, fn, *args)

    def wall(self):
        return self.t

    def bad(self, name, text):
        self.violations.append((name, f"seed {self.seed} ({self.kind}) t={self.t}: {text}"))

    def latency(self):
        return self.rng.randint(*self.lat) * self.slow

    def run(self):
        rng = self.rng
        self.elect(0)
        if self.kind == "faults":
            for _ in range(rng.randrange(1, 5)):
                self.at(rng.randrange(50, 3000), rng.choice((self.fault, self.aim)), rng.choice(
                    ("crash", "freeze", "freeze", "cut", "cut", "noquorum", "slow", "elect", "reject", "reject")), rng.randrange(20, 1200))
        state = self.nodes[0].state
        n = len(state.auctions)
        for i in range(rng.randrange(20, 80)):
            self.at(rng.randrange(0, 3800), self.client, i + 1, rng.randrange(n))
        if self.kind == "hot":
            self.hot = rng.sample(range(n), rng.randrange(1, n))
            for a in self.hot:
                t = state.auctions[a].start_wall + rng.randrange(0, 400)
                for i in range(rng.randrange(150, 500)):
                    self.at(t + i // rng.randrange(1, 6), self.client, 10_000 + a * 1000 + i, a)
        end = 30_000
        while self.heap:
            t, _, fn, args = heapq.heappop(self.heap)
            if t > end or (t > 4500 and self.quiet()):
                break
            self.t = t
            fn(*args)
        return self

    def quiet(self):
        o = self.office_now
        return (self.open == 0 and self.t > self.faults_end + 300 and o is not None and o.alive and not o.flying
                and not any(o.lanes.values()) and all(a.phase == "closed" for a in o.state.auctions))

    # -- the log
    def quorum(self):
        n = self.nodes[self.leader] if self.leader is not None else None
        return n is not None and n.up and not n.cut and self.t >= n.frozen and not self.noquorum

    def propose(self, office, e):
        if office.id[0] != self.term:
            return             # a leader of the past: never commits, and it learns so later
        if self.reject_next and e.n and self.kind == "faults":
            self.reject_next = 0
            self.stats["rejected"] += 1
            return self.after(self.rng.randrange(1, 40), office.rejected, e)
        ready = max(self.t + self.latency(), self.queue[-1][0] if self.queue else 0)
        self.received[(e.office, e.n)] = self.t + self.rng.randint(*P.lat)
        self.queue.append((ready, e, office, self.quorum()))
        self.at(ready, self.pump)

    def pump(self):
        while self.queue and self.queue[0][0] <= self.t and self.quorum():
            _, e, office, _ = self.queue.popleft()
            self.commit(e)
            self.advance(self.nodes[self.leader])
            if e.n == 0 and e.office == (self.term, self.turn):
                self.take(self.nodes[self.leader], e.office)

    def commit(self, e):
        self.log.append(e)
        self.logged_at.append(self.t)

    def advance(self, node):
        while node.applied < len(self.log):
            e = self.log[node.applied]
            top = node.state.top
            v = node.state.apply(e)
            if node.state.top > top:
                node.heard = self.logged_at[node.applied] if "held_from_apply" in self.plants else self.received[(e.office, e.n)]
            node.applied += 1
            self.stats["void"] += v is None
            for a in node.state.auctions:
                if a.phase == "closed" and a.i not in self.closes:
                    self.closes[a.i] = (self.t, a.closed_at)
            for (_, c), verdict in zip(e.commands, v or ()):
                if verdict == "closed" and node.office:
                    self.told_late(node.office, c, verdict)
                if c.kind == "start" and verdict == "accepted":
                    self.live_at.setdefault(c.auction, self.began[(e.office, c.auction)])
            if node.office and node.office.id == e.office and e.n:
                node.office.applied(e, v)

    def take(self, node, oid):
        prev = self.office_now
        if node.office:
            node.office.lose()
        lost = max(0, self.t - node.heard) if prev else 0
        o = node.office = self.office_now = Office(self, node, oid, lost)
        self.offices.append(o)
        self.trace.append((self.t, "office", oid, "node", node.i, "base", o.base))
        if prev and self.outage_of(prev):
            s, r_s, _ = self.outage_of(prev)
            self.stats["outages"] += 1
            length = self.t - s
            given = self.t + P.grace_ms - s - (o.base - r_s)
            self.stats["given_over_letter"] += given > length + P.hold_ms
            self.stats["max_given_minus_length"] = max(self.stats["max_given_minus_length"], given - length)
            if o.base - r_s > P.hold_ms:
                self.bad("eaten", f"new office: {o.base - r_s}")
            if given > length + P.hold_ms + P.grace_ms:
                self.bad("given", f"outage {length} gave back {given}")
        o.poke(0)
        self.after(self.rng.randint(*P.learn), self.learn, node.i, oid)

    def outage_of(self, office):
        return next((x for x in reversed(self.outages) if x[2] is office), None)

    def learn(self, i, oid):
        if oid >= self.known_office:
            self.known, self.known_office = i, oid

    def take_again(self, office):
        """The same replica opens the next office of its term by a marker of its own."""
        if office.id[0] == self.term and self.leader == office.node.i:
            self.outages.append((self.t, office.samples[-1][1], office))
            self.turn += 1
            e = Entry((self.term, self.turn), 0)
            ready = max(self.t + self.latency(), self.queue[-1][0] if self.queue else 0)
            self.queue.append((ready, e, None, self.quorum()))
            self.at(ready, self.pump)

    def elect(self, i):
        """Node `i` leads the next term; of what was in flight and had been sent, a prefix survives."""
        sent = []
        for x in self.queue:
            if not x[3]:
                break
            sent.append(x)
        keep = sent[:self.rng.randrange(0, len(sent) + 1)] if sent else []
        self.queue.clear()
        self.term, self.turn, self.leader = self.term + 1, 0, i
        ready = self.t + self.latency()
        for x in keep:
            self.queue.append((ready, x[1], None, True))
        self.queue.append((ready, Entry((self.term, 0), 0), None, True))
        self.at(ready, self.pump)
        self.trace.append((self.t, "elect", i, "term", self.term, "kept", len(keep)))

    # -- faults
    def aim(self, kind, dur, wait=400):
        """The same fault, just before a deadline and amid a burst of bids."""
        o = self.office_now
        near = [a for a in o.state.auctions if a.phase == "live" and a.ends_at - o.clock.r < 40] if o else []
        if not near and wait:
            return self.after(5, self.aim, kind, dur, wait - 1)
        for k in range(self.rng.randrange(0, 40) if near else 0):
            self.after(self.rng.randrange(0, 40), self.client, 20_000 + len(self.log) * 50 + k, near[0].i)
        self.after(self.rng.randrange(0, 60), self.fault, kind, dur)

    def fault(self, kind, dur):
        self.faults_end = max(self.faults_end, self.t + dur)
        L = self.leader
        node, o = self.nodes[L], self.nodes[L].office
        if o is None or not o.alive or any(not n.up or n.cut or self.t < n.frozen for n in self.nodes) or self.noquorum:
            return
        self.trace.append((self.t, kind, dur, "node", L))
        self.stats[kind] += 1
        if kind == "slow":
            self.slow = self.rng.choice((5, 12, 30))
            return self.after(dur, setattr, self, "slow", 1)
        if kind == "reject":
            self.reject_next = 1
            return
        r = o.read()
        self.outages.append((self.t, r, o))
        if kind == "elect":
            self.elect((L + self.rng.choice((1, 2))) % 3)
            return self.after(self.rng.randrange(0, 100), o.lose)
        if kind == "crash":
            node.up, node.office = False, None
            o.alive, o.pending = False, {}
        elif kind == "freeze":
            node.frozen = self.t + dur
        elif kind == "cut":
            node.cut = True
        else:
            self.noquorum = True
        if kind != "noquorum":
            self.after(self.rng.randrange(150, 700), self.maybe_elect, L, self.term)
        self.after(dur, self.heal, kind, node, o, self.t, r, self.term)

    def maybe_elect(self, L, term):
        n = self.nodes[L]
        if self.term == term and (not n.up or n.cut or self.t < n.frozen):
            self.elect((L + self.rng.choice((1, 2))) % 3)

    def heal(self, kind, node, o, s, r_s, term):
        node.up, node.cut = True, False
        if kind == "noquorum":
            self.noquorum = False
        if kind == "crash" and self.term == term:       # restarted before anybody else was elected
            self.elect((node.i + self.rng.choice((0, 1, 2))) % 3)
        elif self.term != term:
            if kind != "crash":
                delay = self.rng.randrange(0, 30) if kind == "freeze" else 0
                self.after(delay, o.lose)
        elif o.alive:
            eaten = o.read(look=False) - r_s
            bound = P.step_ms if kind == "freeze" else P.hold_ms
            self.stats["outages"] += 1
            self.stats["max_eaten_" + kind] = max(self.stats["max_eaten_" + kind], eaten)
            if eaten > bound:
                self.bad("eaten", f"{kind} of {self.t - s} ms ate {eaten}")
            self.outages.pop()
        self.pump()

    # -- clients and edges
    def client(self, i, auction):
        rng = self.rng
        a = self.nodes[self.leader].state.auctions[auction]
        kind = rng.choices(("bid", "max", "pause", "resume", "extend", "cancel"), (60, 25, 5, 4, 5, 1))[0]
        # A timed pause lasts a second at least: the only bound of the real rules that compressed time would break.
        arg = {"pause": rng.randrange(1_000, 1_500), "extend": rng.randrange(1, 300)}.get(kind, 0)
        if kind in ("bid", "max"):
            arg = max(1, a.price + rng.randrange(-3, 30))
        if i >= 10_000:
            kind, arg = "bid", a.price + 30 + 6 * (i % 1000)
        c = Cmd(auction, kind, arg, 1 + i % 7 if i < 10_000 else i, i)
        copies = [(0, c)]
        if rng.random() < 0.2:
            copies.append((rng.choice((rng.randrange(0, 60), rng.randrange(0, 1500))), c))
        if rng.random() < 0.06:
            other = Cmd(auction, kind, arg + 7, c.bidder, i)
            copies += [(rng.randrange(0, 40), other), (rng.choice((rng.randrange(0, 60), rng.randrange(0, 1500))), other)]
        for delay, x in copies:
            self.open += 1
            self.after(delay, self.send, x, {"told": None, "try": 0})

    def send(self, c, req):
        if req["told"]:
            return
        req["try"] += 1
        mine = req["try"]
        self.after(self.rng.randrange(1, 12), self.deliver, self.known, c, req, mine)
        self.after(P.resend_ms + self.rng.randrange(0, 20), self.overdue, c, req, mine)

    def overdue(self, c, req, mine):
        if not req["told"] and req["try"] == mine:
            self.send(c, req)

    def deliver(self, i, c, req, mine):
        node = self.nodes[i]
        if not node.up:
            return
        if self.t < node.frozen:
            return self.at(node.frozen, self.deliver, i, c, req, mine)
        def reply(v):
            if self.nodes[i].up:
                self.after(self.rng.randrange(1, 12), self.answer, c, req, mine, v)
        if node.office is None or not node.office.alive:
            return reply("not_leader")
        node.office.receive(c, reply)

    def answer(self, c, req, mine, v):
        if req["told"]:
            return
        soft = ("not_judged", "unknown", "not_leader", "busy")
        if v in soft and not ("busy_verdict" in self.plants and v in ("busy", "not_judged")):
            self.stats[v] += 1
            if req["try"] == mine:
                self.after(self.rng.randrange(5, 25), self.retry, c, req, mine)
            return
        req["told"] = v
        self.open -= 1
        self.told[(c.key, c.body)].append(v)

    def retry(self, c, req, mine):
        if req["try"] == mine:
            self.send(c, req)

    def told_late(self, office, c, verdict):
        """Was a bid refused as late although its judge, or the office before within the grace, had it in time?"""
        if verdict != "closed" or c.kind not in ("bid", "max") or not c.id:
            return
        a = office.state.auctions[c.auction]
        for oid, stamp, _, body in self.stamped[c.key]:
            if stamp < a.closed_at and body == c.body and not any(e[2] == "close" and e[3] == "cancelled" for e in a.events[-1:]):
                if oid == office.id or (oid[0] == office.id[0] and self.plants & {"same_office", "n_goes_on"}):
                    return self.bad("in_time", f"{c} stamped {stamp} in {oid}, closed at {a.closed_at}")
                if office.grace() and [o.id for o in self.offices[-2:]] == [oid, office.id]:
                    return self.bad("interregnum", f"{c} stamped {stamp} in {oid}; {office.id} base {office.base}, closed at {a.closed_at}")
