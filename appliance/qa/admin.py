"""`qa admin`: the installation itself."""

from __future__ import annotations

from appliance import config
from appliance.clock import SystemClock
from appliance.ops.install import install
from appliance.qa.context import Context
from appliance.qa.verbs import Given, Verb


async def init(context: Context, given: Given) -> None:
    """`qa admin init`."""
    settings = context.file_settings
    for warning in config.vetted(settings.written, settings.source):
        context.note(f"Warning: {warning}")
    done = await install(settings, SystemClock(), by=context.by, consent=context.confirmed)
    for sentence in done:
        context.say(sentence)
    if not done:
        context.say("Nothing to do: the installation is set up.")


VERBS = (
    Verb(
        "init",
        "Sets this host up: pool, directories, database, identity, certificate. Again, it changes nothing.",
        init,
        examples=("qa admin init --yes",),
    ),
)
