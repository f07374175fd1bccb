#!/bin/sh
# Makes a fresh Debian 12 ready: packages (bindep.txt), the virtual environment, the built
# extension. Does only what is missing, so a second call takes a second. One at a time.
#   devstack/setup.sh compile|test|bench     how far into bindep.txt's profiles to install
set -eu
cd "$(dirname "$0")/.."
case "${1:-compile}" in
    bench) profiles="compile|test|bench" ;;
    test) profiles="compile|test" ;;
    *) profiles="compile" ;;
esac
venv=${VENV:-.venv}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

mkdir -p build
exec 9>build/setup.lock
command -v flock >/dev/null || fail "flock is missing: apt-get install util-linux"
flock -n 9 || fail "another setup of this checkout is running (build/setup.lock)"

packages=$(sed -nE "s/^([a-z0-9][a-z0-9.+-]*) +\[([a-z ]+ )?($profiles)( [a-z ]+)?\].*/\1/p" bindep.txt)
missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.i' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || fail "these packages are missing; as root: apt-get install$missing"
    say "Installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    log=build/apt.log
    # What a bench compares with shall not start as a service of this machine.
    policy=/usr/sbin/policy-rc.d
    if [ "${1:-}" = bench ] && [ ! -e "$policy" ]; then
        guard=yes
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    { apt-get -q update && apt-get -q install -y --no-install-recommends $missing; } >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; fail "apt-get failed; the whole log is in $log"; }
    [ -z "${guard:-}" ] || { rm -f "$policy"; trap - EXIT INT TERM; }
fi

# The environment is made of Debian's own Python, whatever else is on the path.
requirements=$(cat requirements.txt test-requirements.txt constraints.txt pyproject.toml | sha256sum)
if [ "$(cat "$venv/requirements.sha256" 2>/dev/null)" != "$requirements" ]; then
    say "Making the virtual environment $venv"
    [ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv "$venv"
    log=build/requirements.log
    {
        "$venv/bin/pip" install --disable-pip-version-check -c constraints.txt \
            'pbr>=7.0' 'setuptools>=66,<81' wheel &&
            "$venv/bin/pip" install --disable-pip-version-check --no-build-isolation \
                -c constraints.txt -r requirements.txt -r test-requirements.txt
    } >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "pip failed; the whole log is in $log"; }
    echo "$requirements" >"$venv/requirements.sha256"
fi

sources=$(find csrc setup.py setup.cfg -type f | LC_ALL=C sort | xargs cat | sha256sum)
if [ "$(cat "$venv/sources.sha256" 2>/dev/null)" != "$sources" ] ||
    ! "$venv/bin/python" -c 'import vnet_agent.datapath._flowcache' 2>/dev/null; then
    say "Building the extension and the BPF programs"
    rm -rf ./*.egg-info # what an earlier version left would hide the new entry points
    log=build/extension.log
    "$venv/bin/pip" install -v --disable-pip-version-check --no-build-isolation --no-deps -e . \
        >"$log" 2>&1 || { tail -n 40 "$log" >&2; fail "the build failed; the whole log is in $log"; }
    echo "$sources" >"$venv/sources.sha256"
fi
