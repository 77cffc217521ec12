"""The names that users may rely on, and what an import costs."""

import subprocess
import sys

import tfcompress
from tfcompress import converters, edge


def test_names():
    assert tfcompress.__all__ == [
        "ChannelGroup", "ChannelGroups", "Clustering", "Comparison", "Compression", "Distiller",
        "EqualizationPlan", "FakeQuant", "FreezeBatchNorm", "FreezeRanges", "GroupLasso",
        "KeepClusters", "KeepZeros", "LowRankPlan", "Prune", "PrunedVocabulary", "QatReport",
        "QuantizationScheme",
        "QuantizeWrapper", "SmoothL0", "Summary", "Target", "as_keras_hub", "budgets", "calibrate",
        "channel_groups", "cluster_weights", "composite_layers", "compress", "converters",
        "distill", "edge", "equalization_plan", "equalize", "factorize", "importance",
        "low_rank_plan", "masks", "open_layers", "prune_channels", "prune_channels_gradually",
        "prune_vocabulary", "prune_weights", "qat_report", "quantize_aware", "regularize",
        "schedules", "self_distiller", "separable_net", "strip", "summary",
    ]  # fmt: skip
    assert converters.__all__ == [
        "ConversionError", "Converted", "ConverterOptions", "Cut", "DynamicInt8", "Float16",
        "Float32",
        "GraphOp", "Inspection", "Int16x8", "Int4Weights", "Int8", "LanguageModel",
        "ModelFileError", "OutputError",
        "Pass", "Precision", "RuleViolation", "Sparse", "SparseCheck", "SparseWeight", "Sparsified",
        "Split",
        "Verification", "VerificationError", "WeightOnly", "bundle",
        "cached_attention", "check_sparse_kernels", "compare", "convert", "convert_all",
        "convert_generator", "inspect",
        "quantize", "register_precision", "sparsify", "split", "to_c_array", "verify",
        "verify_generator",
    ]  # fmt: skip
    assert edge.__all__ == [
        "Adb", "Availability", "BenchmarkResult", "Browser", "Child", "DelegateMismatch",
        "DelegateUnavailable", "Estimate", "Estimator", "EthosU", "Generator", "Local",
        "Measurement", "Measurer", "Microcontroller", "ModelFileError", "ModelRefused", "OpTime",
        "Placement", "Process", "Profile", "Report",
        "Runner", "Session", "Settings", "Ssh", "Target", "TensorInfo", "benchmark", "delegates",
        "evaluate", "perplexity", "placement", "profile", "register_target",
    ]  # fmt: skip
    for module in (tfcompress, converters, edge):
        assert all(hasattr(module, name) for name in module.__all__)


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_without_keras_the_edge_works_and_the_rest_says_what_to_install():
    # None in sys.modules is how Python marks a module that cannot be imported.
    done = python(
        "import sys\n"
        "sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        "import tfcompress\n"
        "from tfcompress import edge\n"
        "assert edge.delegates()['xnnpack'].available\n"
        "for name in ('Prune', 'budgets'):\n"
        "    try:\n"
        "        getattr(tfcompress, name)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
        "assert not hasattr(tfcompress, 'nonsense')\n"
        "from tfcompress.cli import main\n"
        "main(['bench', str(edge.system.tflite.PROBE), '--runs', '5', '--seconds', '0'])\n"
    )
    assert done.stdout.count("pip install 'tfcompress[tensorflow]'") == 2, done.stderr
    assert "XNNPACK" in done.stdout, done.stderr


def test_importing_registers_classes_and_is_silent():
    done = python(
        "import tfcompress\n"
        "tfcompress.Prune\n"
        "import keras\n"
        "for held in (tfcompress.schedules.Polynomial, tfcompress.FakeQuant,\n"
        "             tfcompress.QuantizeWrapper):\n"
        "    name = f'tfcompress>{held.__name__}'\n"
        "    assert keras.saving.get_registered_object(name) is held\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
