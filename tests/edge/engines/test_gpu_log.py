from tfcompress.edge.engines.gpu_log import GpuLog


def test_gpu_log_parse_reads_adapter_kernels_and_unsupported_ops():
    log = GpuLog.parse(
        "I0000 environment.cc:532] Selected adapter: Some Device (X), arch=a, vendor=v, "
        "backend=Vulkan, adapterType=Discrete GPU\n"
        "ERROR: Following operations are not supported by GPU delegate:\n"
        "CONV_2D: Tensor type(INT16) is not supported. x\n"
        "CUSTOM_OP: no\n"
        "3 operations will run on the GPU, and the remaining 2 operations will run on the CPU.\n"
        "INFO: something else\n"
        "I0000 delegate_kernel.cc:984] Initializing WebGPU-based API from graph.\n"
        "I0000 delegate_kernel.cc:984] Initializing WebGPU-based API from graph.\n"
    )
    assert (log.adapter, log.software, log.kernels) == ("Some Device (X)", False, 2)
    assert log.unsupported == {
        "CONV_2D": "Tensor type(INT16) is not supported. x",
        "CUSTOM_OP": "no",
    }
    assert GpuLog.parse("") == GpuLog()
