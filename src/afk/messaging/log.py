"""The library's logger; it says nothing unless the application sets up logging."""

import logging

log = logging.getLogger("afk.messaging")
