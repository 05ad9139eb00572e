"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """Wrong input: the message is one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
