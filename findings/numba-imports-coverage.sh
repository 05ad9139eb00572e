#!/usr/bin/env bash
# numba 0.68.1 imports the package coverage wherever that is installed, whether anything is being covered or not:
# whoever times the start of a program with compiled loops in an environment for tests times that too.
#
# Seen: after `import numba` alone 41 modules of coverage 7.16.0 are loaded, with NUMBA_JIT_COVERAGE=0 too, which
# is what it is by default and switches the reports to coverage off. Where coverage is not installed none are.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q numba==0.68.1 numpy==2.4.6
cd "$home"
look() {
  NUMBA_JIT_COVERAGE=0 "$home/venv/bin/python" -c 'import sys, numba; print(sum(n.partition(".")[0] == "coverage" for n in sys.modules))'
}
without=$(look)
"$home/venv/bin/pip" install -q coverage==7.16.0
with=$(look)
echo "modules of coverage that \`import numba\` loads: $without where it is not installed, $with where it is"
[ "$without" -eq 0 ] && [ "$with" -gt 0 ]
