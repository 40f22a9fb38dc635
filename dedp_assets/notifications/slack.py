"""A message in the form that Slack's incoming webhooks take. So do those of Mattermost and Discord (`/slack`)."""

from typing import Any

from dedp_assets.notifications.notification import Notification

_COLOURS = {"info": "#2eb886", "warning": "#daa038", "error": "#a30200"}

# Slack cuts a longer text off, or refuses it.
_LONGEST_TEXT = 3000


def slack_payload(notification: Notification) -> dict[str, Any]:
    """Write a message as the body of a request. The attachment's footer has the key: Slack does not look at it."""
    subject, text = _escaped(notification.subject), _escaped(notification.text)
    if len(text) > _LONGEST_TEXT:
        text = text[: _LONGEST_TEXT - 1] + "…"
    attachment = {
        "color": _COLOURS[notification.severity],
        "title": subject,
        "text": text,
        "fallback": subject,
        "footer": _escaped(notification.key),
        "mrkdwn_in": [],
    }
    if notification.link:
        attachment["title_link"] = notification.link
    return {"text": subject, "attachments": [attachment]}


def _escaped(text: str) -> str:
    """Without what would be taken for a link or a mention: names of files and partitions are chosen by others.

    Slack calls people by `<!channel>`; Mattermost and Discord by `@channel`, but not with a space of no width in it.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b")
