"""The one exception a user's mistake raises."""


class UserError(Exception):
    """A setting, file or machine cannot do what was asked; the message is all a person needs.

    One or two lines: the setting, its value, and what would be accepted. The entry prints the
    message without a traceback and exits with status 1.
    """
