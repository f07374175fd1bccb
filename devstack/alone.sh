#!/bin/sh
# Runs a command, unless a demo or a test run is going on on this machine: they would share the
# lab, the checkout and the cores. The lock ends with the last process that has it open.
exec 8>/run/vnet-make.lock
flock -n 8 || {
    echo "A demo or a test run is going on on this machine already; wait for it to end." >&2
    exit 1
}
exec "$@"
