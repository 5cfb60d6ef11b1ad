"""The one exception for what a user got wrong."""


class UserError(Exception):
    """A mistake the user can mend: one line that names the file, the value and the remedy.

    Scripts print it without a traceback and exit with code 2.
    """
