#!/bin/bash
# Makes DIR/python: the distribution's CPython for a Raspberry Pi, run by qemu-user. For Debian; needs
# no root, changes nothing outside DIR, and does nothing if it was done before.
#
#   arm64: a Pi 4 with 64 bits (aarch64), and the ai-edge-litert of the Python that is active
#   armhf: a Pi 2 with 32 bits (armv7l), and tflite-runtime, for which ai-edge-litert has no wheel
#
#   tests/emulated_pi.sh .pi        then: .pi/python -c 'import ai_edge_litert'
#   tests/emulated_pi.sh .pi32 armhf
set -euo pipefail
arch=${2:-arm64}
[[ $# -ge 1 && $arch =~ ^(arm64|armhf)$ ]] || { echo "usage: $0 DIR [arm64|armhf]" >&2; exit 2; }
packages=(libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8)
if [ "$arch" = arm64 ]; then
    # Not qemu's default, a processor with all extensions: with those that qemu 7.2 emulates wrongly,
    # XNNPACK computes int8 wrongly, which no Pi does.
    cpu=cortex-a72 emulator=qemu-aarch64-static module=ai_edge_litert
    runtime=ai-edge-litert==$(python3 -c 'from importlib.metadata import version as v; print(v("ai-edge-litert"))')
    wheels=(manylinux_2_28_aarch64 manylinux_2_27_aarch64 manylinux2014_aarch64)
else
    cpu=cortex-a7 emulator=qemu-arm-static module=tflite_runtime
    runtime=tflite-runtime==2.14.0
    wheels=(manylinux_2_34_armv7l)
    packages+=(python3-numpy libblas3 liblapack3 libgfortran5) # PyPI has no NumPy for it
    # Python imports modules on these where it can. After one library is missing, the dynamic loader
    # finds none under qemu-arm.
    packages+=(libbz2-1.0 liblzma5 libssl3 libuuid1)
fi
dir=$(mkdir -p "$1" && cd "$1" && pwd)
[ "$(cat "$dir/done" 2>/dev/null)" != "$runtime $cpu" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$dir"/{done,python,qemu,site,sysroot}
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs} "$dir/sysroot/proc"

# The machine's own package sources, with a private state and Arm beside its own architecture.
host=$(dpkg --print-architecture)
cat > "$work/apt.conf" <<CONF
APT::Architecture "$arch"; APT::Architectures { "$arch"; "$host"; };
Dir::State "$work/state"; Dir::State::status "/dev/null"; Dir::Cache "$work/cache";
APT::Sandbox::User ""; Acquire::Languages "none"; Debug::NoLocking "1";
CONF
export APT_CONFIG="$work/apt.conf"
# One of several sources may be out of order. What is then missing, the download below names.
apt-get -qq update || true
python=$(apt-cache show --no-all-versions python3-minimal |
    sed -n 's/^Pre-Depends:.*\(python3\.[0-9]*\)-minimal.*/\1/p')
tag=cp${python//[!0-9]/}
# pip takes --platform literally, so each tag is named. Debian's NumPy stands for that of PyPI.
python3 -m pip install -qq --no-compile --only-binary=:all: --python-version "${python#python}" \
    --implementation cp --abi "$tag" "${wheels[@]/#/--platform=}" --target "$dir/site" \
    $([ "$arch" = armhf ] && echo --no-deps) "$runtime" &
pip=$!
(cd "$work/debs" && apt-get -qq download "${packages[@]}" \
    "lib$python-minimal" "lib$python-stdlib" "$python-minimal" "qemu-user-static:$host")
dpkg-deb --fsys-tarfile "$work"/debs/qemu-user-static*.deb | tar x -O "./usr/bin/$emulator" > "$dir/qemu"
rm "$work"/debs/qemu-user-static*.deb
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/sysroot"; done
wait $pip

if [ "$arch" = arm64 ]; then
    # XNNPACK's look at the CPU crashes under qemu without an Arm cpuinfo: a Raspberry Pi 4's.
    for core in 0 1; do
        printf '%s\n' "processor : $core" 'Features : fp asimd evtstrm crc32 cpuid' \
            'CPU implementer : 0x41' 'CPU architecture: 8' 'CPU variant : 0x0' 'CPU part : 0xd08' \
            'CPU revision : 3' ''
    done > "$dir/sysroot/proc/cpuinfo"
else
    # Where Debian's alternatives would have put them.
    ln -s blas/libblas.so.3 lapack/liblapack.so.3 "$dir/sysroot/usr/lib/arm-linux-gnueabihf"
fi
cat > "$dir/python" <<RUN
#!/bin/sh
PYTHONPATH=$dir/site:$dir/sysroot/usr/lib/python3/dist-packages\${PYTHONPATH:+:\$PYTHONPATH} exec "$dir/qemu" -cpu $cpu -L "$dir/sysroot" "$dir/sysroot/usr/bin/$python" "\$@"
RUN
chmod +x "$dir/qemu" "$dir/python"
"$dir/python" -c "import $module.interpreter"
echo "$runtime $cpu" > "$dir/done"
