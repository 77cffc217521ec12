import pytest

from tfcompress.edge.system.machine import cpu_name


@pytest.mark.parametrize(
    ("cpuinfo", "named"),
    [
        ("model name\t: A Server\nflags\t\t: fpu avx512f amx_tile amx_int8\n", "A Server with AMX"),
        ("model name\t: A Server\nflags\t\t: fpu avx512f\n", "A Server"),
        ("processor\t: 0\nFeatures\t: fp asimd\n\nModel\t\t: A Raspberry Pi\n", "A Raspberry Pi"),
    ],
    ids=["with-amx", "without", "pi"],
)
def test_cpu_name_says_whether_int8_can_use_amx(cpuinfo, named):
    assert cpu_name(cpuinfo) == named
