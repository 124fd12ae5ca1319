#!/bin/sh
# Finds a Python that can make environments and hands over to setup.py. Usage: setup.sh runtime|test
set -eu
cd "$(dirname "$0")/.."
for python in python3.11 python3.12 python3.13 python3.14 python3; do
    found=$(command -v "$python" 2>/dev/null) || continue
    "$found" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null || continue
    if "$found" -c 'import ensurepip, venv' 2>/dev/null; then
        exec "$found" scripts/setup.py "$@"
    fi
    lacking=$found
done
if [ -n "${lacking:-}" ]; then
    version=$("$lacking" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "setup: $lacking lacks the venv module; on Debian or Ubuntu: apt install python$version-venv" >&2
else
    echo "setup: no Python 3.11 to 3.14 found; on Debian or Ubuntu: apt install python3.11 python3.11-venv" >&2
fi
exit 1
