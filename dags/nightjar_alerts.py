"""Who is told when a run fails or something falls suddenly: Airflow's notifiers, by connection.

``nightjar_webhook`` receives JSON: host ``https://…`` (and port) is the address, a password the
secret end of its path, as of Slack's webhooks; ``headers`` in the extra field are sent along.
``nightjar_smtp`` is a mail server as Airflow's SMTP connection describes it; its extra field names
the recipients as ``to`` (a list) and the sender as ``from_email``. Where a connection does not
exist, nothing is sent there. The Variable ``nightjar_docs_url`` is where the lake's folder ``docs``
is served, for links that work on other machines.
"""

from __future__ import annotations

import html
import http.client
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.exceptions import AirflowException
from nightjar_tasks import address_of, connection, label_of, lake_of

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.incidents import Incident

log = logging.getLogger("nightjar")
WEBHOOK, MAIL = "nightjar_webhook", "nightjar_smtp"
SECONDS = 10  # to wait for a webhook; a callback must not hold up the DAG processor
# What keeps a message from getting through: the network, the server, the connection's fields.
UNDELIVERED = (OSError, ValueError, AirflowException)


class WebhookNotifier(BaseNotifier):
    """POSTs a message as JSON to an Airflow connection."""

    def __init__(self, message: dict[str, Any], conn_id: str = WEBHOOK, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message
        self.conn_id = conn_id

    def notify(self, context: Any) -> None:
        found = connection(self.conn_id)
        if found is None:
            raise ValueError(f"there is no connection {self.conn_id}")
        address, headers = _address(found), found.extra_dejson.get("headers", {})
        request = urllib.request.Request(  # noqa: S310 _address takes http and https alone
            address,
            json.dumps(self.message).encode(),
            {"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310 likewise
                pass
        except urllib.error.HTTPError as error:
            raise OSError(f"{self.conn_id} answered {error.code}") from None
        except (http.client.HTTPException, ValueError) as error:
            # Not in its own words: they may hold the address or a header, and these the secret.
            raise OSError(f"{self.conn_id}: {type(error).__name__}") from None


def _address(found: Any) -> str:
    """The address that a connection names; raises ``ValueError`` for another scheme."""
    host = (found.host or "").rstrip("/")
    if "://" not in host:
        host = f"{found.schema or 'https'}://{host}"
    if found.port:
        host = f"{host}:{found.port}"
    if not host.startswith(("http://", "https://")):
        raise ValueError(f"the host of {found.conn_id} must be an http or https address")
    return f"{host}/{found.password.lstrip('/')}" if found.password else host


# --- the callbacks of the DAGs ---------------------------------------------------------------
def tell_failure(context: Any) -> None:
    """Tell of what failed first in a run, unless it is known."""
    from jobs import incidents

    found = None
    if "dag_run" in context:
        lake, label = lake_of(context["params"]), label_of(context)
        found = incidents.first(lake, label, context["dag_run"].run_id)
    tell(context, [found or _failed_task(context)])


def tell_recovery(context: Any) -> None:
    """What was wrong is over, and news when it comes again: a release was published."""
    if "dag_run" not in context:
        return
    found = lake_of(context["params"]).at("release", label_of(context))
    # A refresh that was skipped is green, too.
    if found and found.manifest["run_id"] == context["dag_run"].run_id:
        tell(context, [], over=True)


def _failed_task(context: Any) -> Incident:
    from jobs.incidents import Incident

    task = context.get("ti")
    if task is None:
        return Incident("run", f"The run failed: {context.get('reason', 'nobody knows why')}.")
    return Incident(
        f"task:{task.task_id}",
        f"The task {task.task_id} failed, and what follows it did not run. "
        f"Its log says why: {task.log_url}",
    )


def tell(context: Any, found: Sequence[Incident], over: bool = False) -> None:
    """Tell each channel of what it was not told yet. ``over``: whatever is not among ``found`` is
    over. What cannot be delivered is logged, and tried again by the next run that meets it."""
    from jobs import incidents

    lake, dag_id = lake_of(context.get("params") or {}), context["dag"].dag_id
    now = datetime.now(UTC)
    known = incidents.told(lake, dag_id)
    if over:
        known = incidents.only(known, [one.key for one in found])
    for one in found:
        for channel in (WEBHOOK, MAIL):
            if incidents.is_news(known, one.key, channel, now) and _send(channel, context, one):
                known[one.key] = {**known.get(one.key, {}), channel: now.isoformat()}
    try:
        incidents.remember(lake, dag_id, known)
    except OSError as error:
        log.warning("alerts=%s not_remembered=%s", incidents.file(lake, dag_id), error)


def _send(channel: str, context: Any, one: Incident) -> bool:
    """Whether a channel exists and took the message."""
    found = connection(channel)
    if found is None:
        return False
    text = f"{context['dag'].dag_id}: {one.text}"
    message = {
        "text": text,
        "dag": context["dag"].dag_id,
        "run": context["run_id"],
        "verdict": one.verdict,
        "page": link_to(context, one.page),
    }
    try:
        notifier = _mail(found) if channel == MAIL else WebhookNotifier(message)
        # In the context, not in the template: nothing of the data is read as a template. And
        # nothing else, since `make diagnose` has another kind of DAG there than a notifier takes.
        notifier({"nightjar": _letter(message)})
    except UNDELIVERED as error:
        said = error if isinstance(error, ValueError) else type(error).__name__
        log.error("alert=%s channel=%s undelivered=%s", one.key, channel, said)
        return False
    log.info("alert=%s channel=%s", one.key, channel)
    return True


def _mail(found: Any) -> BaseNotifier:
    """Airflow's own notifier of mail; raises ``ValueError`` where no recipient is named."""
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    to = found.extra_dejson.get("to")
    if not to:
        raise ValueError(f"the extra field of {MAIL} names no recipients as `to`")
    return SmtpNotifier(
        to=to, subject="{{ nightjar.subject }}", html_content="{{ nightjar.html }}",
        smtp_conn_id=MAIL,
    )  # fmt: skip


def _letter(message: dict[str, Any]) -> dict[str, str]:
    """A message as a mail's subject and body."""
    paragraphs = [message["text"], f"Run: {message['run']}", message["page"]]
    return {
        "subject": f"[nightjar] {' '.join(message['text'].split())[:150]}",
        "html": "".join(f"<p>{html.escape(part)}</p>" for part in paragraphs),
    }


def link_to(context: Any, page: Path | None) -> str:
    """A page of the lake, where it was built, else the run in Airflow."""
    if page is not None and page.is_file():
        served = Variable.get("nightjar_docs_url", default=None)
        return f"{served.rstrip('/')}/{page.name}" if served else page.as_uri()
    return address_of(context)
