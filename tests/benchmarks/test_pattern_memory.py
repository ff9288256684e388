from benchmarks.pattern_memory import parser, stream, whole


def test_the_stream_fills_every_prototype() -> None:
    options = parser().parse_args(["--tokens", "9", "--prototypes", "5", "--top-k", "3", "--classes", "2"])
    assert stream(options, 130)["members"] == 5 * 3


def test_a_network_from_end_to_end() -> None:
    options = parser().parse_args(["--whole", "3", "--arch", "vit_tiny", "--size", "32", "--prototypes", "16"])
    found = whole(options)
    assert (found["images"], found["patches"]) == (3, 12)
    assert found["peak_gib"] > 0
