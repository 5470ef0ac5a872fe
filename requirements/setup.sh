#!/usr/bin/env bash
# Set up the virtual environment: `requirements/setup.sh runtime` or `requirements/setup.sh dev`;
# `requirements/setup.sh minimum` makes $VENV-min with the oldest versions that the core supports.
# Does nothing, quickly, when what it would install is already there.
set -euo pipefail
cd "$(dirname "$0")/.."
level=$1
venv=${VENV:-.venv}
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH

USABLE='
import ensurepip, os, sys, sysconfig, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) or not os.path.exists(headers))
'
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
        if "$candidate" -c "$USABLE" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or 3.12 with venv and headers is needed" >&2
    echo "       (apt install python3-venv python3-dev, or set PYTHON=...)" >&2
    exit 1
}

stamp_of() { cat "$@" | sha256sum | cut -d ' ' -f 1; }
done_already() { [ "$(cat "$venv/.$1.stamp" 2>/dev/null)" = "$2" ]; }

for tool in gcc g++ cmake; do
    command -v $tool >/dev/null || { echo "error: $tool is needed (apt install build-essential cmake)" >&2; exit 1; }
done
if ! "$venv/bin/python" -c '' 2>/dev/null; then
    python=$(find_python)
    echo "== virtual environment $venv ($("$python" --version))"
    "$python" -m venv "$venv"
fi

if [ "$level" = minimum ]; then
    minimum=$(stamp_of requirements/minimum.lock "$0")
    oldest=$venv-min
    [ "$(cat "$oldest/.stamp" 2>/dev/null)" = "$minimum" ] && exit 0
    echo "== oldest supported versions in $oldest"
    base=$("$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    "$base" -m venv --clear "$oldest"
    "$oldest/bin/python" -m pip install --quiet --no-deps --require-hashes -r requirements/minimum.lock
    echo "$minimum" > "$oldest/.stamp"
    exit 0
fi

runtime=$(stamp_of requirements/runtime.lock setup.py setup.cfg "$0")
if ! done_already runtime "$runtime"; then
    echo "== runtime (no torch)"
    "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r requirements/runtime.lock
    "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$runtime" > "$venv/.runtime.stamp"
fi

messages=$(stamp_of requirements/runtime.lock requirements/tf2_msgs/CMakeLists.txt \
    requirements/tf2_msgs/package.xml requirements/tf2_msgs/msg/TFMessage.msg)
if ! done_already tf2_msgs "$messages"; then
    echo "== tf2_msgs (generated once: it has no wheel)"
    prefix=$(cd "$venv" && pwd)
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    (
        export PATH="$prefix/bin:$PATH" AMENT_PREFIX_PATH="$prefix" CMAKE_PREFIX_PATH="$prefix"
        cmake -S requirements/tf2_msgs -B "$build" -DCMAKE_INSTALL_PREFIX="$prefix" \
            -DCMAKE_BUILD_TYPE=Release -DPython3_EXECUTABLE="$prefix/bin/python" -DBUILD_TESTING=OFF
        cmake --build "$build"
        cmake --install "$build"
    ) > "$build/log" 2>&1 || { cat "$build/log" >&2; exit 1; }
    echo "$messages" > "$venv/.tf2_msgs.stamp"
fi

[ "$level" = dev ] || exit 0
dev=$(stamp_of requirements/dev.lock "$0")
if ! done_already dev "$dev"; then
    echo "== training and test tools"
    "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r requirements/dev.lock
    # Without a hash, and with its dependencies: which build of torch is right depends on the machine.
    "$venv/bin/python" -m pip install --quiet torch==2.13.0
    "$venv/bin/python" -m pip check
    echo "$dev" > "$venv/.dev.stamp"
fi
