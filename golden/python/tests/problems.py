"""Small problems the tests share."""

from assay_golden.fixture import Config, Fixture, Generator

STANDARD_DEVIATION = 37837.2274468090


def make_fixture(name="tiny", sizes=(64, 32, 8, 2), batch=2, sequence=6, seed=1, routing="natural", fill="gaussian", store=True, norm=True):
    hidden, inner, experts, top_k = sizes
    tokens = batch * sequence
    rows = (
        ("input_hidden_states", 1, (tokens, hidden), 1.0),
        ("gate", 2, (experts, hidden), 0.3),
        ("gate_up_proj", 3, (experts, 2 * inner, hidden), 0.1),
        ("down_proj", 4, (experts, hidden, inner), 0.1),
        ("d_hidden_states", 5, (tokens, hidden), 1.0),
    )
    generators = {
        field: Generator(fill, routing, seed, stream, shape, deviation / STANDARD_DEVIATION) for field, stream, shape, deviation in rows
    }
    return Fixture(name, Config(hidden, inner, experts, top_k, norm), batch, sequence, seed, generators, store, True)


def odd_fixture(**changes):
    return make_fixture("odd", (72, 40, 7, 3), 1, 13, **changes)
