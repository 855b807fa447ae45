"""Several hosts in one URL."""

from __future__ import annotations

import re

_AGAIN = re.compile(r",(?:nats|tls)://(?:[^@,/]*@)?")


def joined(url: str) -> str:
    """`nats://a,nats://b`, as NATS's own tools write a cluster, as `nats://a,b`. Whom to connect as
    is taken from the first."""
    return _AGAIN.sub(",", url)
