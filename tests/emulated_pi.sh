#!/bin/bash
# Makes DIR/python: the distribution's CPython for a 64-bit Raspberry Pi 4 (aarch64), run by qemu-user,
# with the ai-edge-litert of the Python that is active. For Debian; needs no root, changes nothing
# outside DIR, and does nothing if it was done before.
#
#   tests/emulated_pi.sh .pi        then: .pi/python -c 'import ai_edge_litert'
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
runtime=ai-edge-litert==$(python3 -c 'from importlib.metadata import version as v; print(v("ai-edge-litert"))')
# Not qemu's default, a processor with all extensions: with those that qemu 7.2 emulates wrongly,
# XNNPACK computes int8 wrongly, which no Pi does.
cpu=cortex-a72
dir=$(mkdir -p "$1" && cd "$1" && pwd)
[ "$(cat "$dir/done" 2>/dev/null)" != "$runtime $cpu" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$dir"/{done,python,qemu,site,sysroot}
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs} "$dir/sysroot/proc"

# The machine's own package sources, with a private state and arm64 beside its own architecture.
host=$(dpkg --print-architecture)
cat > "$work/apt.conf" <<CONF
APT::Architecture "arm64"; APT::Architectures { "arm64"; "$host"; };
Dir::State "$work/state"; Dir::State::status "/dev/null"; Dir::Cache "$work/cache";
APT::Sandbox::User ""; Acquire::Languages "none"; Debug::NoLocking "1";
CONF
export APT_CONFIG="$work/apt.conf"
apt-get -qq update
python=$(apt-cache show --no-all-versions python3-minimal |
    sed -n 's/^Pre-Depends:.*\(python3\.[0-9]*\)-minimal.*/\1/p')
tag=cp${python//[!0-9]/}
# pip takes --platform literally, so each tag is named.
python3 -m pip install -qq --no-compile --only-binary=:all: --python-version "${python#python}" \
    --implementation cp --abi "$tag" --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --target "$dir/site" "$runtime" &
pip=$!
(cd "$work/debs" && apt-get -qq download libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 \
    "lib$python-minimal" "lib$python-stdlib" "$python-minimal" "qemu-user-static:$host")
dpkg-deb --fsys-tarfile "$work"/debs/qemu-user-static*.deb |
    tar x -O ./usr/bin/qemu-aarch64-static > "$dir/qemu"
rm "$work"/debs/qemu-user-static*.deb
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/sysroot"; done
wait $pip

# XNNPACK's look at the CPU crashes under qemu without an Arm cpuinfo: a Raspberry Pi 4's.
for core in 0 1; do
    printf '%s\n' "processor : $core" 'Features : fp asimd evtstrm crc32 cpuid' \
        'CPU implementer : 0x41' 'CPU architecture: 8' 'CPU variant : 0x0' 'CPU part : 0xd08' \
        'CPU revision : 3' ''
done > "$dir/sysroot/proc/cpuinfo"
cat > "$dir/python" <<RUN
#!/bin/sh
PYTHONPATH=$dir/site\${PYTHONPATH:+:\$PYTHONPATH} exec "$dir/qemu" -cpu $cpu -L "$dir/sysroot" "$dir/sysroot/usr/bin/$python" "\$@"
RUN
chmod +x "$dir/qemu" "$dir/python"
"$dir/python" -c 'import ai_edge_litert.interpreter'
echo "$runtime $cpu" > "$dir/done"
