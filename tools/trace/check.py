#!/usr/bin/env python3
"""A trace in the trace model of Chromium's developer tools, and against the run's ledger.

    tools/trace/check.py RUN/trace-FIRST-LAST.json

The trace was made by `trident train` with trace.steps. The model that the Performance panel shows
(devtools://devtools/bundled/models/trace, in Debian's package chromium) reads it: every slice must
be there, on the thread that has its name, and below the slice that holds it. Then without the
browser: each arrow has one begin and one end, in slices of two ranks; and where all steps of the
run were traced, bytes are those of ledger.json beside it. Prints what was compared; exits 1 when
something differs.
"""
import collections
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from browser import Browser  # noqa: E402

PAGE = "devtools://devtools/bundled/devtools_app.html"
PARSE = """(async () => {
    const trace = await import('devtools://devtools/bundled/models/trace/trace.js');
    const model = trace.TraceModel.Model.createWithAllHandlers();
    await model.parse(%s, {metadata: {}, isFreshRecording: false});
    const data = model.parsedTrace(0).data;
    const threads = [];
    for (const [pid, process] of data.Renderer.processes) {
        for (const [tid, thread] of process.threads) {
            const slices = [];
            const walk = (node, depth) => {
                slices.push([node.entry.name, node.entry.ts, node.entry.dur, depth]);
                node.children.forEach(child => walk(child, depth + 1));
            };
            thread.tree?.roots.forEach(root => walk(root, 0));
            threads.push({pid, tid, name: thread.name, entries: thread.entries.length, slices});
        }
    }
    return JSON.stringify({generic: data.Meta.traceIsGeneric, threads});
})()"""


def nanoseconds(value):
    return round(value * 1000)


def tracks_of(events):
    """{(pid, tid): [(name, begin, duration, depth)]}, by begin, outer ones first."""
    tracks = collections.defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(
                (nanoseconds(event["ts"]), -nanoseconds(event["dur"]), event["name"]))
    found = {}
    for track, slices in tracks.items():
        open_ends, rows = [], []
        for begin, length, name in sorted(slices, key=lambda s: s[:2]):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            rows.append((name, begin, -length, len(open_ends)))
            open_ends.append(begin - length)
        found[track] = rows
    return found


def compare_model(events, read):
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events
             if event["ph"] == "M" and event["name"] == "thread_name"}
    expected = tracks_of(events)
    found = {(thread["pid"], thread["tid"]): thread for thread in read["threads"]}
    if not read["generic"]:
        yield "the model takes it for a browser's own trace"
    for track, slices in expected.items():
        thread = found.get(track)
        if not thread or thread["name"] != names[track]:
            yield f"{track}: not there, or not named {names[track]}"
            continue
        if thread["entries"] != len(slices):
            yield f"{track}: {thread['entries']} slices, expected {len(slices)}"
        rows = [(name, nanoseconds(at), nanoseconds(length), depth)
                for name, at, length, depth in thread["slices"]]
        if sorted(rows) != sorted(slices):
            wrong = set(rows) ^ set(slices)
            yield f"{track}: {len(wrong)} slices differ, first {sorted(wrong)[:2]}"


def compare_arrows(events):
    ends = collections.defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            ends[event["id"]].append(event)
    for arrow in ends.values():
        if sorted(end["ph"] for end in arrow) != ["f", "s"] or arrow[0]["pid"] == arrow[1]["pid"]:
            yield f"an arrow has the ends {arrow[:3]}"


def compare_ledger(events, ledger):
    """A run books more than its steps: before them, and when it adds up the ranks' ledgers."""
    keys = ("operation", "group", "phase", "kind")
    sums = collections.Counter()
    for event in events:
        call = event.get("args", {})
        if event["ph"] == "X" and "operation" in call:
            sums[tuple(call[key] for key in keys)] += call["bytes"]
    for row in ledger["collectives"]:
        cell = tuple(row[key] for key in keys)
        aside = row["phase"] == "setup" or cell == ("all_reduce", "world", "checkpoint", "meta")
        if not aside and sums[cell] != row["bytes_all_ranks"]:
            yield f"{cell}: {sums[cell]} bytes, {row['bytes_all_ranks']} in ledger.json"


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    path = pathlib.Path(sys.argv[1])
    trace = json.loads(path.read_text(encoding="utf-8"))
    events = trace["traceEvents"]
    browser = Browser()
    browser.call("Page.enable")
    browser.call("Page.navigate", url=PAGE)
    browser.wait_for("Page.loadEventFired")
    read = browser.evaluate(PARSE % json.dumps(events))
    browser.close()
    faults = list(compare_model(events, read))
    slices = sum(event["ph"] == "X" for event in events)
    arrows = sum(event["ph"] == "s" for event in events)
    said = f"{slices} slices on {len(tracks_of(events))} tracks"
    if not any(rank["dropped"] for rank in trace["otherData"]["ranks"]):
        faults += compare_arrows(events)
        said += f", {arrows} arrows"
        ledger = json.loads((path.parent / "ledger.json").read_text(encoding="utf-8"))
        first, last = trace["otherData"]["first_step"], trace["otherData"]["last_step"]
        if ledger["steps"] == last - first + 1:
            faults += compare_ledger(events, ledger)
            said += f", bytes of {len(ledger['collectives'])} rows of the ledger"
    for fault in faults:
        print(f"check: {fault}", file=sys.stderr)
    print(said)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
