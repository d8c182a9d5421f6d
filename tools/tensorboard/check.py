#!/usr/bin/env python3
"""TensorBoard's own loader against metrics.jsonl: every step once, every value the same.

    pip install tensorboard
    tools/tensorboard/check.py RUN

RUN was trained with metrics.tensorboard, and may have been stopped or killed and gone on. Prints
how many scalars and histograms were compared; exits 1 when one differs, is missing or is there
twice.
"""
import json
import struct
import sys

from tensorboard.backend.event_processing import event_accumulator

SCALARS = {
    "loss/train": "loss",
    "loss/cross_entropy": "cross_entropy",
    "loss/aux": "aux_loss",
    "loss/z": "z_loss",
    "optimizer/grad_norm": "grad_norm",
    "optimizer/learning_rate": "learning_rate",
    "speed/tokens_per_second": "tokens_per_second",
    "time_ms/step": "step_ms",
}


def as_float(value):
    """As a float32, which is what an event holds."""
    return struct.unpack("f", struct.pack("f", value))[0]


def read_lines(run):
    with open(f"{run}/metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    steps = [line for line in lines if "loss" in line]
    return steps, [line for line in lines if "valid_loss" in line]


def compare(found, expected, what, faults):
    """Both are lists of (step, value)."""
    if found != expected:
        wrong = [pair for pair in zip(found, expected) if pair[0] != pair[1]]
        faults.append(f"{what}: {len(found)} events, expected {len(expected)}; first {wrong[:1]}")
    return len(expected)


def main():
    run = sys.argv[1]
    everything = {"scalars": 0, "histograms": 0, "tensors": 0}
    events = event_accumulator.EventAccumulator(run, size_guidance=everything)
    events.Reload()
    steps, valid = read_lines(run)
    faults = []
    scalars = 0
    for tag, key in SCALARS.items():
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        expected = [(line["step"], as_float(line[key])) for line in steps if line[key] is not None]
        scalars += compare(found, expected, tag, faults)
    if valid:
        found = [(event.step, event.value) for event in events.Scalars("loss/valid")]
        expected = [(line["step"], as_float(line["valid_loss"])) for line in valid]
        scalars += compare(found, expected, "loss/valid", faults)
    tags = sorted(events.Tags()["histograms"], key=lambda tag: int(tag.rsplit("_", 1)[1]))
    histograms = 0
    for index, tag in enumerate(tags):
        found = [
            (event.step, [int(count) for count in event.histogram_value.bucket])
            for event in events.Histograms(tag)
        ]
        with_load = [line for line in steps if line["expert_load"]]
        expected = [(line["step"], line["expert_load"][index]) for line in with_load]
        histograms += compare(found, expected, tag, faults)
    for fault in faults:
        print(fault)
    print(f"{run}: {scalars} scalars and {histograms} histograms of {len(steps)} steps compared, "
          f"{len(faults)} tags differ")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
