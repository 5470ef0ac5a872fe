"""A logger of ROS that only remembers."""


class LogRecorder:
    """`lines`: level and text of each line."""

    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(("info", text))

    def warning(self, text):
        self.lines.append(("warning", text))
