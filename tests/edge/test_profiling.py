import pytest

from tests.edge.targets.test_answers import Other
from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE


def names(file, **options):
    return [(op.name, op.kernels) for op in edge.profile(file, runs=3, **options).ops]


def test_profile_names_the_ops_of_the_delegate(files):
    found = names(files["fixed"])
    kinds = [name.partition(" (")[0] for name, _ in found]
    assert [kind for kind in kinds if kind != "Static Reshape"] == [
        "Convolution",
        "Fully Connected",
    ]
    assert {kernels for _, kernels in found} == {"XNNPACK"}
    # A free batch becomes 1.
    assert names(files["float32"]) == found


def test_profile_counts_ops_once_where_the_delegate_takes_some(files):
    found = names(files["split"])
    assert ("REVERSE_SEQUENCE", "built-in") in found
    placed = edge.placement(files["split"])
    built_in = sum(kernels == "built-in" for _, kernels in found)
    assert built_in == placed.ops_total - placed.ops_delegated == 1
    assert sum(name.startswith("Convolution") for name, _ in found) == 2


def test_profile_has_the_ops_of_a_file_without_a_delegate(files):
    found = names(files["int16"])
    assert ("CONV_2D", "built-in") in found and ("FULLY_CONNECTED", "built-in") in found


def test_profile_takes_several_inputs_and_times_of_ops_are_within_the_run(files):
    assert len(names(files["two"])) == 2
    found = edge.profile(files["fixed"], runs=20)
    assert found.total_us >= 0 and found.runs == 20
    assert found.to_dict()["ops"][0]["kernels"] == "XNNPACK"


def test_profile_marks_an_emulated_target_and_refuses_what_does_not_fit(tmp_path):
    found = edge.profile(PROBE, runs=2, target=edge.Local("qemu", emulated=True))
    assert "on qemu (emulated: these times mean nothing)" in str(found)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(PROBE.read_bytes()[:300])
    with pytest.raises(edge.ModelFileError, match="corrupt"):
        edge.profile(broken)
    other = Other(profile={"names": ["a"], "kernels": [], "us": []})
    with pytest.raises(edge.ModelRefused, match="different lengths"):
        edge.profile(PROBE, target=other)
