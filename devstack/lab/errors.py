"""What can go wrong in the lab, each with a message that says what to do."""


class LabError(Exception):
    """The lab cannot do what was asked; the message is for whoever runs it."""
