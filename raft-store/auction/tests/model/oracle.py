#!/usr/bin/env python3
# Part of Rushroom; licensed like it (Apache-2.0).
"""The reference model, asked by a test of the real code (tests/oracle.rs tells the form of a story).

  oracle.py run SEED KIND [PLANT]   one cluster of the model's, with its troubles: what its log says, as a story
  oracle.py apply [PLANT]           reads stories without answers, each closed by a line `end`; tells each whole
"""
import random
import sys

from clock_model import Sim
from clock_shard import Auction, Cmd, Entry, Shard


def pairs(items):
    return ",".join(f"{a}:{b}" for a, b in items)


def tell(out, state, entries):
    """Applies the entries and tells them with their verdicts, then every auction's events."""
    for a in state.auctions:
        out.append(f"auction {a.i} {a.duration} {a.start_price} {a.reserve} {a.mode} "
                   f"{a.cut_per} {a.floor} {a.window} {a.reset_to} {a.ext_max}")
    for e in entries:
        verdicts = state.apply(e)
        commands = ",".join(f"{t}:{c.auction}:{c.kind}:{c.arg}:{c.bidder}:{c.id}" for t, c in e.commands)
        said = "void" if verdicts is None else ",".join(verdicts)
        out.append(f"entry {e.office[0]} {e.office[1]} {e.n} {e.at}|{pairs(e.behind)}|{pairs(e.holds)}|{commands}|{said}")
    for a in state.auctions:
        for ev in a.events:
            out.append(" ".join(["event", str(a.i)] + ["-" if x is None else str(x) for x in ev]))
    out.append(f"end {state.top} {state.clamped}")
    print("\n".join(out), flush=True)


def parse_entry(text):
    head, behind, holds, commands = text.split("|")
    term, turn, n, at = map(int, head.split())

    def two(part):
        return tuple(tuple(map(int, x.split(":"))) for x in part.split(",") if x)

    def command(part):
        t, auction, kind, arg, bidder, key = part.split(":")
        return int(t), Cmd(int(auction), kind, int(arg), int(bidder), int(key))

    return Entry((term, turn), n, at, two(behind), tuple(command(x) for x in commands.split(",") if x), two(holds))


def parse_auction(text):
    words = text.split()
    a = Auction(int(words[0]), random.Random(0))
    a.duration, a.start_price, a.reserve, a.mode = int(words[1]), int(words[2]), int(words[3]), words[4]
    a.cut_per, a.floor, a.window, a.reset_to, a.ext_max = map(int, words[5:])
    a.price = a.start_price
    return a


def apply(plants):
    auctions, entries = [], []
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "auction":
            auctions.append(parse_auction(rest))
        elif word == "entry":
            entries.append(parse_entry(rest))
        elif word == "end":
            state = Shard(0, 0, plants)
            state.auctions = auctions
            tell(["story 0 applied"], state, entries)
            auctions, entries = [], []


def run(seed, kind, plants):
    sim = Sim(seed, plants, kind).run()
    tell([f"story {seed} {kind}"], Shard(len(sim.nodes[0].state.auctions), seed, plants), sim.log)


def main():
    what, *args = sys.argv[1:]
    if what == "apply":
        apply(frozenset(args))
    else:
        run(int(args[0]), args[1], frozenset(args[2:]))


if __name__ == "__main__":
    main()
