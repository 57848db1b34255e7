"""What can be done with hosts, alarms and settings."""

from __future__ import annotations

from appliance.tui.actions import Action, Ask, How

HOST_ACTIONS = (
    Action(
        name="host.block",
        key="b",
        title="Block",
        doc="Keeps new clients and new runs from hosts; what runs goes on.",
        noun="host",
        verb="block",
        ask=Ask.ALWAYS,
        fits=lambda host: not host.blocked,
        unfit="blocked already",
        costs=lambda hosts: ["Nobody can connect anew, and no desktop starts there."],
    ),
    Action(
        name="host.unblock",
        key="u",
        title="Unblock",
        doc="Lets clients and runs in again.",
        noun="host",
        verb="unblock",
        fits=lambda host: host.blocked,
        unfit="not blocked",
    ),
    Action(
        name="host.add",
        key="a",
        title="Add",
        doc="Adds a host.",
        noun="host",
        verb="add",
        how=How.FORM,
        about_rows=False,
    ),
    Action(
        name="host.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of hosts.",
        noun="host",
        verb="propset",
        how=How.PROPERTIES,
    ),
    Action(
        name="host.delete",
        key="D",
        title="Delete",
        doc="Deletes hosts that have neither desktops nor a daemon that runs.",
        noun="host",
        verb="del",
        ask=Ask.TYPED,
        costs=lambda hosts: ["Their rows and counters go for good."],
    ),
)

ALARM_ACTIONS = (
    Action(
        name="alarm.clear",
        key="C",
        title="Clear alarms",
        doc="Says that somebody has looked after the open alarms.",
        noun="alarm",
        verb="clear",
        how=How.ALARMS,
        ask=Ask.ALWAYS,
        about_rows=False,
    ),
)

SETTING_ACTIONS = (
    Action(
        name="config.set",
        key="E",
        title="Set",
        doc="Gives a setting another value.",
        noun="config",
        verb="set",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="config.delete",
        key="D",
        title="Reset",
        doc="Removes settings from the database, so that the file or the default holds again.",
        noun="config",
        verb="del",
        ask=Ask.ALWAYS,
        fits=lambda row: row.source == "database",
        unfit="not set in the database",
    ),
)
