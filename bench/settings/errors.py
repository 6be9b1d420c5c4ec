"""The one exception for users' mistakes."""


class UserError(Exception):
    """A setting, file or machine cannot do what was asked; the message says everything needed.

    One or two lines: the setting, its value, and what would be accepted. The entry prints the
    message without a traceback and exits with status 1.
    """
