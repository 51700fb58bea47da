"""What keeps somebody from getting on, told once in the log however often it is met."""

from twisted.logger import Logger


class Trouble:
    """The trouble of the moment.

    Attributes:
        text: What it is, or "".
    """

    def __init__(self, log: Logger, met: str, over: str) -> None:
        """Prepare.

        Args:
            log: Whose lines they are.
            met: The format of a line that tells of a `{trouble}`.
            over: The line that tells that it is over.
        """
        self._log = log
        self._met = met
        self._over = over
        self._told: set[str] = set()
        self.text = ""

    def met(self, text: str) -> None:
        """It is this one; one line for each since things last went well."""
        self.text = text
        if text not in self._told:
            self._told.add(text)
            self._log.error(self._met, trouble=text)

    def over(self) -> None:
        """Things go well."""
        if self.text:
            self.text = ""
            self._told.clear()
            self._log.info(self._over)
