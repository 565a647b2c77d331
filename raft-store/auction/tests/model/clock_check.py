#!/usr/bin/env python3
# Part of Rushroom; licensed like it (Apache-2.0).
"""The checks of the reference model of the clock, and its command line. See clock_model.py."""
import argparse
import bisect
import collections
import multiprocessing
import random

from clock_model import PLANTS, P, Sim
from clock_shard import Entry, Shard


# ---------------------------------------------------------------- checks
def repack(sim, state, rng):
    """The same committed commands in other entries: other cuts, other interleaving, other beats."""
    holds, lanes, probe = [], collections.defaultdict(collections.deque), Shard(len(state.auctions), sim.seed, sim.plants)
    for e in sim.log:
        if probe.apply(e) is not None:
            holds.extend(e.holds)
            for arrived, c in e.commands:
                lanes[c.auction].append((arrived, c))
    out, n, at = Shard(len(state.auctions), sim.seed, sim.plants), 0, 0
    last = 0
    out.apply(Entry((1, 0), 0))
    while at < state.top or any(lanes.values()):
        at = min(state.top, at + rng.choice((0, 1, 3, 20, 150, 900)))
        taken = []
        ready = [i for i, q in lanes.items() if q and q[0][0] <= at and rng.random() < 0.7]
        while ready:
            i = rng.choice(ready)
            taken.append(lanes[i].popleft())
            if not lanes[i] or lanes[i][0][0] > at or rng.random() < 0.2:
                ready.remove(i)
        n += 1
        behind = tuple((i, q[0][0]) for i, q in lanes.items() if q and q[0][0] <= at)
        out.apply(Entry((1, 0), n, at, behind, tuple(taken), tuple(h for h in holds if last <= h[0] < at)))
        last = at
    return out


def effective(sim):
    """The shard's clock after the fact: (t, stamp), each office cut where the next one's base lies."""
    out = []
    for k, o in enumerate(sim.offices):
        stop = sim.offices[k + 1].base if k + 1 < len(sim.offices) else None
        for t, r in o.samples:
            if stop is not None and (r > stop or t > sim.offices[k + 1].took):
                break
            out.append((t, r))
    return out


def when(clock, stamp):
    """The real time at which the clock first reached the stamp (between looks: in proportion)."""
    i = bisect.bisect_left([r for _, r in clock], stamp)
    if i == len(clock):
        return None
    (t0, r0), (t1, r1) = clock[max(0, i - 1)], clock[i]
    return t1 - (r1 - stamp) if r1 > r0 else t1


def check(sim):
    for node in sim.nodes:
        sim.advance(node)
    a0 = sim.nodes[0].state
    if len({repr(n.state.digest()) for n in sim.nodes}) != 1:
        sim.bad("agree", "digests differ")
    for j in range(2):
        other = repack(sim, a0, random.Random(sim.seed * 7 + j))
        for x, y in zip(a0.auctions, other.auctions):
            if (x.hash, x.events, x.ids) != (y.hash, y.events, y.ids):
                diff = next((p for p in zip(x.events, y.events) if p[0] != p[1]), None)
                sim.bad("repack", f"auction {x.i}: {diff}, {len(x.events)} and {len(y.events)} events")
                break
    if a0.clamped or a0.back or any(a.fell for a in a0.auctions):
        sim.bad("monotone", f"clamped {a0.clamped}, back {a0.back}, fell {[a.fell for a in a0.auctions]}")
    clock = effective(sim)
    for (t0, r0), (t1, r1) in zip(clock, clock[1:]):
        if r1 < r0 or r1 - r0 > max(0, t1 - t0):
            sim.bad("fast", f"effective {(t0, r0)} -> {(t1, r1)}")
            break
    for (key, body), said in sim.told.items():
        known = a0.auctions[key[0]].ids.get(key[1:])
        did = known is not None and known == (body, "accepted")
        for v in said:
            if (v == "accepted") != did:
                sim.bad("once", f"{key} {body} told {said}, the log says {known}")
                break
        sim.stats["other_reason"] += len(set(said)) > 1
    for key, k in a0.accepts.items():
        if k > 1:
            sim.bad("once", f"{key} accepted {k} times")
    for a in a0.auctions:
        if a.phase != "closed":
            sim.bad("hang", f"auction {a.i} is {a.phase}, ends_at {a.ends_at}, top {a0.top}")
    if sim.open:
        sim.bad("hang", f"{sim.open} requests unanswered")
    if sim.kind != "faults":
        for i, (t, due) in sim.closes.items():
            if a0.auctions[i].events[-1][3] == "cancelled":
                continue
            begun = when(clock, due)
            late = t - begun if begun is not None else 0
            name = "max_late_hot" if i in sim.hot else "max_late_quiet"
            sim.stats[name] = max(sim.stats[name], late)
            if late > 100:
                sim.bad("late", f"auction {i}: {late} ms after {due}")
    declared(sim, a0, clock)
    return sim


def declared(sim, state, clock):
    """Declared holds of an auction against real minus stamp time over its life."""
    for a in state.auctions:
        if a.phase != "closed" or len(a.events) < 2:
            continue
        first, last = a.events[0][1], a.events[-1][1]
        t0, t1 = max(sim.live_at[a.i], when(clock, first + 1) or 0), when(clock, last)
        if t1 is None or t1 <= t0:
            continue
        actual = (t1 - t0) - (last - first)
        said = sum(e[3] for e in a.events if e[2] == "held")
        changes = sum(1 for o in sim.offices[1:] if t0 <= o.took + P.grace_ms and o.took <= t1)
        slack = P.declare_ms + P.look_ms + P.lat[1] + changes * (P.declare_ms + 2 * P.lat[1] + P.look_ms)
        gap = abs(said - actual)
        sim.stats["max_declared_gap"] = max(sim.stats["max_declared_gap"], gap)
        if gap > slack:
            sim.bad("declared", f"auction {a.i}: declared {said}, held {actual}, slack {slack}")


def one(args):
    seed, plants, kind = args
    try:
        sim = check(Sim(seed, plants, kind).run())
    except Exception as err:   # a crash of the model is a finding about the model
        return seed, [("model", f"seed {seed}: {err!r}")], collections.Counter()
    return seed, sim.violations, sim.stats


def main():
    ap = argparse.ArgumentParser(description="Reference model of the consensus clock")
    ap.add_argument("--seeds", type=int, default=500)
    ap.add_argument("--first", type=int, default=0)
    ap.add_argument("--seed", type=int)
    ap.add_argument("--kind", choices=("faults", "calm", "hot"))
    ap.add_argument("--plant", action="append", default=[], choices=sorted(PLANTS))
    ap.add_argument("--trace", action="store_true")
    ap.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    args = ap.parse_args()
    plants = frozenset(args.plant)
    if args.seed is not None:
        sim = check(Sim(args.seed, plants, args.kind).run())
        for line in sim.trace if args.trace else ():
            print(*line)
        print(*(f"{n}: {t}" for n, t in sim.violations), dict(sim.stats), sep="\n")
        return bool(sim.violations)
    count, example, total = collections.Counter(), {}, collections.Counter()
    with multiprocessing.Pool(args.jobs) as pool:
        work = ((s, plants, args.kind) for s in range(args.first, args.first + args.seeds))
        for seed, violations, stats in pool.imap_unordered(one, work, 16):
            for name in {n for n, _ in violations}:
                count[name] += 1
                text = next(t for n, t in violations if n == name)
                example.setdefault(name, text)
            for k, v in stats.items():
                total[k] = max(total[k], v) if k.startswith("max_") else total[k] + v
    print(f"{args.seeds} schedules, planted: {', '.join(sorted(plants)) or 'nothing'}")
    for name, k in count.most_common():
        print(f"  VIOLATED {name}: {k} schedules; {example[name]}")
    print("  " + ", ".join(f"{k} {v}" for k, v in sorted(total.items())))
    return bool(count)


if __name__ == "__main__":
    raise SystemExit(main())
