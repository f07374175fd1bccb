"""`python -m devstack.demo`: the main job, end to end, on two hosts with real VMs."""
