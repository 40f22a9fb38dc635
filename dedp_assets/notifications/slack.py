"""A message in the form that Slack's incoming webhooks take. So do those of Mattermost and Discord (`/slack`)."""

import re
from typing import Any

from dedp_assets.notifications.notification import Notification

_COLOURS = {"info": "#2eb886", "warning": "#daa038", "error": "#a30200"}

# Slack cuts a longer text off, or refuses it.
_LONGEST_TEXT = 3000
_LONGEST_SUBJECT = 300

# For Mattermost and Discord: everybody is called in the middle of a word, too, a person only at its begin.
_MENTION = re.compile(r"@(?=(?:all|channel|everyone|here)\b)|(?<!\w)@(?=\w)", re.IGNORECASE)


def slack_payload(notification: Notification) -> dict[str, Any]:
    """Write a message as the body of a request. The attachment's footer has the key: Slack does not look at it."""
    subject = _escaped(notification.subject, _LONGEST_SUBJECT)
    attachment = {
        "color": _COLOURS[notification.severity],
        "title": subject,
        "text": _escaped(notification.text, _LONGEST_TEXT),
        "fallback": subject,
        "footer": _escaped(notification.key, _LONGEST_SUBJECT),
        "mrkdwn_in": [],
    }
    if notification.link:
        attachment["title_link"] = notification.link
    return {"text": subject, "attachments": [attachment]}


def _escaped(text: str, longest: int) -> str:
    """Without what would become a link or a mention: names of files and partitions are chosen by others."""
    text = _MENTION.sub("@\u200b", text)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped if len(escaped) <= longest else escaped[: longest - 1] + "…"
