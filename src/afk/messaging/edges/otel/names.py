"""The names of the messaging conventions that we use, in one place: they may still change."""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = "afk.messaging"

SYSTEM: Final = "messaging.system"
OUR_SYSTEM: Final = "afk"

# -- operations --------------------------------------------------------------------------

OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"

CREATE: Final = "create"
SEND: Final = "send"
RECEIVE: Final = "receive"
PROCESS: Final = "process"
SETTLE: Final = "settle"

# -- attributes --------------------------------------------------------------------------

DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
ERROR_TYPE: Final = "error.type"

ATTEMPT: Final = "messaging.afk.attempt"
DUPLICATE: Final = "messaging.afk.duplicate"
OUTDATED: Final = "messaging.afk.outdated"
DEAD_REASON: Final = "messaging.afk.dead_reason"

# -- metrics -----------------------------------------------------------------------------

OPERATION_DURATION: Final = "messaging.client.operation.duration"
PROCESS_DURATION: Final = "messaging.process.duration"
SENT_MESSAGES: Final = "messaging.client.sent.messages"
CONSUMED_MESSAGES: Final = "messaging.client.consumed.messages"
DEAD_MESSAGES: Final = "messaging.afk.client.dead.messages"

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The buckets that the conventions advise for durations."""
