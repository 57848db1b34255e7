"""`qa admin`: the installation itself."""

from __future__ import annotations

from appliance import config
from appliance.clock import SystemClock
from appliance.errors import AdminError, ConflictError
from appliance.ops import reset as resetting
from appliance.ops.install import install
from appliance.qa.context import Context
from appliance.qa.verbs import Argument, Given, Verb


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


async def reset(context: Context, given: Given) -> int | None:
    """`qa admin reset`."""
    settings = context.file_settings
    name = given.get("name")
    if name is not None and name != settings[config.NODENAME]:
        raise ConflictError(f"this host is not {name}", hint="qa config get nodename says which it is")
    if not context.input.isatty() and not (name and context.invocation.force):
        raise AdminError(
            "this must be confirmed by the host's name", hint="name=HOST --yes does it without asking"
        )
    with resetting.daemon_kept_out(settings):
        estate = await resetting.survey(settings, SystemClock())
        if estate.is_empty:
            context.say("Nothing to do: there is no installation.")
            return None
        resetting.check_idle(settings, estate)
        for line in resetting.describe(estate, settings):
            print(line, file=context.words)
        if not _meant(context, settings[config.NODENAME], name):
            context.note("Nothing was done.")
            return 1
        await resetting.remove(settings, estate, lambda what: context.note(f"removing: {what} …"))
    context.say("The installation is gone.")
    return None


def _meant(context: Context, host: str, name: str | None) -> bool:
    """Whether the person means it: they write the host's name, here or on the command line with --yes."""
    if name is not None and context.invocation.force:
        return True
    print("Write the name of this host to go on: ", end="", file=context.words, flush=True)
    return context.input.readline().strip() == host


VERBS = (
    Verb(
        "init",
        "Sets this host up: pool, directories, database, identity, certificate. Again, it changes nothing.",
        init,
        examples=("qa admin init --yes",),
    ),
    Verb(
        "reset",
        "Takes the installation off this host: homes, images, database. Asks for the host's name.",
        reset,
        arguments=(Argument("name", "the name of this host, together with --yes", shape="HOST"),),
        examples=("qa admin reset", "qa admin reset name=server1 --yes"),
    ),
)
