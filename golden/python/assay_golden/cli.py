"""The command line: export goldens, print the hashes of generated tensors, check files, run peers."""

import argparse
import os
import sys

from .errors import AssayError, InputError, UsageError
from .fixture import ask_program, choose, read_fixtures

EPILOG = "exit codes: 0 done, 2 the command line is wrong, 3 could not be done (file, schema, library release, device)"


def _parser():
    parser = argparse.ArgumentParser(prog="assay_golden", description="Golden files of HuggingFace's Qwen3 MoE layer.", epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="run HuggingFace's block and write <fixture>.<implementation>.h5", epilog=EPILOG)
    _add_source(export)
    export.add_argument("--checkpoint", metavar="DIR", help="a local model folder instead of fixtures")
    export.add_argument("--layer", type=int, metavar="N", help="which layer of the checkpoint")
    export.add_argument("--prompt", metavar="FILE", help="text (with a tokenizer in DIR) or token ids; default: seeded ids")
    export.add_argument("--out", default=".", metavar="DIR", help="folder of the goldens (default: here)")
    export.add_argument("--implementation", choices=("grouped_mm", "eager", "both"), default="both")
    export.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    export.add_argument("--compress", type=int, choices=range(5), default=4, help="deflate level, 0 = none (default: 4)")
    export.add_argument("--threads", type=int, metavar="N", help="threads that generate weights (default: all cores)")
    export.add_argument("--largest", type=int, default=1 << 62, metavar="BYTES", help="a larger field is held by its hashes, unless weights are stored")
    export.add_argument("--revision", default="", help="git revision to record (default: that of this source)")
    hashes = commands.add_parser("hash", help="print fixture, field and SHA-256 of every generated tensor, per expert for weights")
    _add_source(hashes)
    hashes.add_argument("--threads", type=int, metavar="N")
    check = commands.add_parser("check", help="re-read files and check every hash they state")
    check.add_argument("files", nargs="+", metavar="FILE")
    peer = commands.add_parser("peer", help="run another project's MoE layer on a golden's problem and write a candidate", epilog=EPILOG)
    peer.add_argument("--peer", required=True, choices=("unsloth", "unsloth_torch", "liger", "sonicmoe", "scattermoe"), help="whose layer")
    peer.add_argument("--golden", required=True, metavar="FILE", help="whose input, weights and routing; a fixture's: assay golden make --predicted")
    peer.add_argument("--out", required=True, metavar="FILE", help="the candidate, for assay verify --golden GOLDEN --pipeline dump:FILE")
    peer.add_argument("--path", metavar="DIR", help="the peer's sources, the folder that holds its package; default: as installed")
    peer.add_argument("--version", default="", help="release or revision of --path, to record")
    peer.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda; cpu is for Triton's interpreter")
    peer.add_argument("--threads", type=int, metavar="N", help="threads that generate weights (default: all cores)")
    return parser


def _add_source(parser):
    parser.add_argument("--fixtures", metavar="FILE", help="what `assay list fixtures --json` printed")
    parser.add_argument("--assay", metavar="PATH", help="the program to ask for its fixtures")
    parser.add_argument("--fixture", action="append", default=[], metavar="NAME", help="repeatable; default: all with golden = true")


def _fixtures(arguments):
    if bool(arguments.fixtures) == bool(arguments.assay):
        raise UsageError("expected exactly one of --fixtures FILE and --assay PATH")
    known = read_fixtures(arguments.fixtures) if arguments.fixtures else ask_program(arguments.assay)
    return choose(known, arguments.fixture)


def _export(arguments):
    if (arguments.checkpoint is None) != (arguments.layer is None):
        raise UsageError("--checkpoint DIR and --layer N belong together")
    if arguments.checkpoint and arguments.fixture:
        raise UsageError("expected --checkpoint or --fixture, not both")
    if arguments.prompt and not arguments.checkpoint:
        raise UsageError("--prompt needs --checkpoint")
    fixtures = [] if arguments.checkpoint else _fixtures(arguments)
    options = _options(arguments)
    if arguments.checkpoint:
        from .checkpoint import export_checkpoint

        written = export_checkpoint(arguments.checkpoint, arguments.layer, arguments.prompt, options)
    else:
        from .export import export_fixture

        written = (result for fixture in fixtures for result in export_fixture(fixture, options))
    count = 0
    for path, digest in written:
        print(f"{digest}  {path}", flush=True)
        count += 1
    if count == 0:
        raise UsageError("no fixture has golden = true: name one with --fixture")


def _options(arguments):
    from .export import Options
    from .provenance import choose_device, gather, set_switches

    switches = set_switches()
    try:
        os.makedirs(arguments.out, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {arguments.out}: {error}")
    return Options(
        arguments.out, choose_device(arguments.device), arguments.implementation, arguments.compress, arguments.threads,
        gather(switches, arguments.revision), arguments.largest,
    )  # fmt: skip


def _hash(arguments):
    from .fills import materialise
    from .generated import generated_experts
    from .schema import array_hash

    for fixture in _fixtures(arguments):
        for name, generator in fixture.generators.items():
            if len(generator.shape) < 3 or name == "input_hidden_states":
                print(fixture.name, name, array_hash(materialise(generator, name)), flush=True)
        for name, expert, _, digest in generated_experts(fixture.generators, arguments.threads):
            print(fixture.name, f"{name}[{expert}]", digest, flush=True)


def _peer(arguments):
    from .peer import choose_peer_device, write_peer
    from .peer_layers import PEERS
    from .provenance import gather, set_switches

    peer = PEERS[arguments.peer]
    switches = set_switches()
    device = choose_peer_device(peer, arguments.device)
    digest = write_peer(peer, arguments.golden, arguments.out, device, arguments.path, arguments.threads, arguments.version, gather(switches))
    print(f"{digest}  {arguments.out}", flush=True)


def _check(arguments):
    from .schema import read

    for path in arguments.files:
        file = read(path)
        print(f"{path}: {file.kind} of {file.fixture or 'an unnamed problem'}, {len(file.tensors)} tensors, every stated hash holds")


def main(argv=None):
    arguments = _parser().parse_args(argv)
    try:
        {"export": _export, "hash": _hash, "check": _check, "peer": _peer}[arguments.command](arguments)
    except AssayError as error:
        print(f"assay_golden: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 3
    return 0
