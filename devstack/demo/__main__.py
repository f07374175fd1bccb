"""`python -m devstack.demo [--keep | --down]`; exit status 0 says PASS."""

import argparse
import sys
import time

from devstack.cloud import Cloud
from devstack.lab import Lab, LabError

from .display import Display
from .job import MainJob


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything up at the end")
    parser.add_argument("--down", action="store_true", help="take away what was left up")
    options = parser.parse_args()
    display = Display()
    try:
        if options.down:
            Lab.sweep()
            return 0
        return run_demo(display, keep=options.keep)
    except KeyboardInterrupt:
        display.failed("interrupted; everything was taken away")
        return 130
    except LabError as error:
        display.failed(str(error))
        return 1


def run_demo(display: Display, *, keep: bool) -> int:
    began = time.monotonic()
    with Lab() as lab:
        cloud = Cloud(lab)
        job = MainJob(cloud, display.say)
        steps = job.steps()
        try:
            for number, (title, run) in enumerate(steps, 1):
                display.step(number, len(steps), title, run)
        finally:
            show_outcome(display, cloud, job)
        if keep:
            lab.keep()
            explain(display, cloud)
    display.passed(time.monotonic() - began)
    return 0


def show_outcome(display: Display, cloud: Cloud, job: MainJob) -> None:
    """The report and the events, also when a step failed: they tell why."""
    if not (cloud.controller and cloud.controller.alive and cloud.api.url):
        return
    names = {guest.uuid: guest.name for guest in (job.web, job.reboots, job.crashes)}
    if job.reports:
        display.reports(job.reports)
    display.events(cloud.api.events(), names)


def explain(display: Display, cloud: Cloud) -> None:
    a = cloud.lab.hosts[0]
    socket = a.path("/run/vnet/agent.sock")
    for line in (
        f"The page: {cloud.api.url}/",
        f"Events:   curl {cloud.api.url}/v1/events",
        f"Ports:    {sys.prefix}/bin/vnetctl --socket {socket} port list",
        f"VMs:      virsh -c '{a.uri}' list",
        f"Logs:     {cloud.lab.workdir}",
        "The end:  make demo-down",
    ):
        display.console.print(line, soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main())
