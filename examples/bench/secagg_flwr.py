"""Measures Flower's SecAgg+ as `fedlora-sim secagg` measures fedlora's: one round in memory.

    python3 -m venv bench && bench/bin/pip install flwr==1.42.0 numpy==2.4.6
    bench/bin/python examples/bench/secagg_flwr.py --members 10 --elements 1000000 --drop 1

It runs Flower's own code and nothing else: `SecAggPlusWorkflow` on the server's side and
`secaggplus_mod` on each client's. Between them stands `Wire`, in the place of Flower's grid: it hands
messages over as the bytes that Flower would send, to one client after the other, and loses what a
dropped client would have answered. Making and reading those bytes is not timed.

What is timed, so that both sides count the same things (milliseconds):

- client_setup_ms    the stages setup, share keys and unmask, with the opening of sealed shares and the
                     key agreements of the stage that masks; the sum by the number of clients
- client_encode_ms   `parameters_multiply`, `quantize`
- client_mask_ms     the rest of the stage that masks, from integers to the bytes of each array
- server_add_ms      `bytes_to_ndarray` and the addition of one client's arrays
- server_unmask_ms   from the last share's arrival to the unmasked integers: `combine_shares`, the masks
- bytes and control_bytes_per_member  the masked arrays; all other content of messages of one client

Flower has no default for shares and threshold: --shares and --threshold, by default all clients and
fedlora's threshold among them. Everything else is its default. The result is one JSON document.
"""

import argparse
import importlib
import json
import logging
import secrets
import statistics
import sys
import time
from importlib.metadata import version

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.server import ServerConfig
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

# Modules by their names: their packages have functions of the same names.
client_side = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
server_side = importlib.import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")

# Every client's weight: the workflow's default `max_weight`, so that nothing is lost in its ratio.
EXAMPLES = 1000
# A larger error of the mean means that the round did not work.
MAX_ERROR = 0.01


class Failed(Exception):
    """A round that gave no mean, or a wrong one."""


class Clock:
    """Milliseconds spent in named functions while a stage runs."""

    def __init__(self):
        self.spent = {}

    def reset(self):
        taken, self.spent = self.spent, {}
        return taken

    def watch(self, module, names):
        """Counts the time in functions of a module, under their names."""
        for name in names:
            setattr(module, name, self.timed(name, getattr(module, name)))

    def timed(self, name, function):
        def call(*args, **kwargs):
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + (time.perf_counter() - begun) * 1e3

        return call


class Proxy(ClientProxy):
    """A client as the strategy knows it: an id. What it should do goes through the wire."""

    def __init__(self, node_id):
        super().__init__(str(node_id))
        self.node_id = node_id

    def unused(self, *_args, **_kwargs):
        raise NotImplementedError

    get_properties = get_parameters = fit = evaluate = reconnect = unused


class Wire:
    """Flower's grid without a network: clients answer one after the other, in this thread."""

    def __init__(self, updates, dropped, clock):
        self.clients = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in updates
        }
        self.updates, self.dropped, self.clock = updates, dropped, clock
        self.setup, self.encode, self.mask = 0.0, [], []
        self.control = dict.fromkeys(updates, 0)
        self.masked_bytes = 0
        self.server, self.server_since = {}, None

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        stage = messages[0].content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        self.clock.reset()
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            late = stage in (Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK)
            if late and node in self.dropped:
                continue
            replies.append(self.ask(node, stage, message))
        self.clock.reset()
        self.server_since = time.perf_counter()
        return replies

    def ask(self, node, stage, message):
        content, size = sent(message.content)
        self.control[node] += size
        message = Message(content, dst_node_id=node, message_type="train", group_id=message.metadata.group_id)
        begun = time.perf_counter()
        reply = client_side.secaggplus_mod(message, self.clients[node], self.train)
        whole = (time.perf_counter() - begun) * 1e3
        spent = self.clock.reset()
        if stage == Stage.COLLECT_MASKED_VECTORS:
            encode = spent["parameters_multiply"] + spent["quantize"]
            keys = spent["decrypt"] + spent["generate_shared_key"]
            self.setup += keys
            self.encode.append(encode)
            self.mask.append(whole - encode - keys - spent["train"] - spent["parameters_to_ndarrays"])
        else:
            self.setup += whole
        content, size = sent(reply.content)
        configs = content.config_records[RECORD_KEY_CONFIGS]
        if stage == Stage.COLLECT_MASKED_VECTORS:
            self.masked_bytes = sum(map(len, configs[Key.MASKED_PARAMETERS]))
            size -= self.masked_bytes
        self.control[node] += size
        return Message(content, reply_to=message)

    def train(self, message, context):
        """What a client's app would do: its update, ready since before the round."""
        begun = time.perf_counter()
        parameters = self.updates[context.node_id]
        result = FitRes(Status(Code.OK, ""), parameters, EXAMPLES, {})
        reply = Message(compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)
        self.clock.spent["train"] = (time.perf_counter() - begun) * 1e3
        return reply


def sent(content):
    """Message content as it arrives, and its bytes on the way."""
    data = recorddict_to_proto(content).SerializeToString()
    proto = type(recorddict_to_proto(RecordDict()))
    return recorddict_from_proto(proto.FromString(data)), len(data)


def update(args, place):
    """The part that all have in common, and as much again of its own, of L2 norm 1: as fedlora's."""
    common = np.random.default_rng(1).uniform(-1, 1, args.elements)
    values = common + np.random.default_rng(2 + place).uniform(-1, 1, args.elements)
    return (values / np.linalg.norm(values)).astype(np.float32)


def measure_round(args, updates, clock):
    nodes = [secrets.randbits(63) for _ in updates]
    parameters = {node: ndarrays_to_parameters([values]) for node, values in zip(nodes, updates)}
    dropped = set(nodes[len(nodes) - args.drop :])
    wire = Wire(parameters, dropped, clock)
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(Proxy(node))
    state = RecordDict()
    state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    # The global model is no part of aggregation: an empty one keeps it out of times and bytes.
    state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(Parameters([], "numpy.ndarray"), True)
    context = LegacyContext(
        Context(run_id=1, node_id=0, node_config={}, state=state, run_config={}),
        ServerConfig(num_rounds=1),
        FedAvg(min_fit_clients=len(nodes), min_available_clients=len(nodes)),
        manager,
    )
    shares = args.shares or args.members
    threshold = args.threshold or default_threshold(args.members)
    workflow = server_side.SecAggPlusWorkflow(shares if shares < args.members else 1.0, threshold)
    plain_extract = server_side.factor_extract
    marks = {}

    def extract(recovered):
        # The masks are off: what follows is decoding.
        marks["unmask"] = (time.perf_counter() - wire.server_since) * 1e3
        return plain_extract(recovered)

    server_side.factor_extract = extract
    plain_stage = workflow.collect_masked_vectors_stage

    def collect(*stage_args):
        done = plain_stage(*stage_args)
        marks["add"] = sum(clock.reset().get(name, 0.0) for name in ("bytes_to_ndarray", "parameters_addition"))
        return done

    workflow.collect_masked_vectors_stage = collect
    try:
        workflow(wire, context)
    finally:
        server_side.factor_extract = plain_extract
    if "unmask" not in marks:
        raise Failed("the round was halted: too few clients for these shares and threshold")
    array = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    mean = parameters_to_ndarrays(array)[0].astype(np.float64)
    exact = np.mean([values.astype(np.float64) for values in updates[: len(updates) - args.drop]], axis=0)
    survivor = nodes[0]
    return {
        "client_setup_ms": wire.setup / len(nodes),
        "client_encode_ms": statistics.median(wire.encode),
        "client_mask_ms": statistics.median(wire.mask),
        "server_add_ms": marks["add"] / (len(nodes) - args.drop),
        "server_unmask_ms": marks["unmask"],
        "bytes_per_element": wire.masked_bytes / args.elements,
        "control_bytes_per_member": wire.control[survivor],
        "relative_rms_error": float(np.linalg.norm(mean - exact) / np.linalg.norm(exact)),
    }


def default_threshold(members):
    """fedlora's threshold where all are neighbours (docs/PROTOCOL.md, notation)."""
    return (members + (members - 1) // 3) // 2 + 1


def measure(args):
    clock = Clock()
    clock.watch(
        client_side,
        ["decrypt", "generate_shared_key", "parameters_multiply", "quantize", "parameters_to_ndarrays"],
    )
    clock.watch(server_side, ["bytes_to_ndarray", "parameters_addition"])
    updates = [update(args, place) for place in range(args.members)]
    rounds = [measure_round(args, updates, clock) for _ in range(args.repeats)]
    figures = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    if figures["relative_rms_error"] > MAX_ERROR:
        raise Failed(f"the mean is wrong: relative error {figures['relative_rms_error']:.2e}")
    return {
        "versions": {name: version(name) for name in ("flwr", "numpy", "cryptography", "pycryptodome")},
        "members": args.members,
        "neighbours": (args.shares or args.members) - 1,
        "threshold": args.threshold or default_threshold(args.members),
        "dropped": args.drop,
        "elements": args.elements,
        "threads": 1,
        "repeats": args.repeats,
        **figures,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--drop", type=int, default=1)
    parser.add_argument("--shares", type=int, help="shares of each secret: its neighbours and itself [all]")
    parser.add_argument("--threshold", type=int, help="shares that recover a secret [fedlora's]")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        print(json.dumps(measure(args)))
    except Failed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
