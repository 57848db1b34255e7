"""What can be done with the owners of desktops."""

from __future__ import annotations

from appliance.tui.actions import Action, Ask, How, count

USER_ACTIONS = (
    Action(
        name="user.add",
        key="a",
        title="Add",
        doc="Adds a user.",
        noun="user",
        verb="add",
        how=How.FORM,
        about_rows=False,
        fields=("login", "password"),
    ),
    Action(
        name="user.password",
        key="P",
        title="Password",
        doc="Gives a user another password.",
        noun="user",
        verb="passwd",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="user.disable",
        key="x",
        title="Disable",
        doc="Lets users log in no more and ends their sessions; their desktops go on.",
        noun="user",
        verb="disable",
        ask=Ask.ALWAYS,
        fits=lambda user: bool(user.enabled),
        unfit="disabled already",
        costs=lambda users: [
            f"{count(sum(user.connected for user in users), 'session')} will end; the desktops go on."
        ],
    ),
    Action(
        name="user.enable",
        key="s",
        title="Enable",
        doc="Lets users log in again.",
        noun="user",
        verb="enable",
        ask=Ask.SEVERAL,
        fits=lambda user: not user.enabled,
        unfit="enabled already",
    ),
    Action(
        name="user.edit",
        key="E",
        title="Rename",
        doc="Gives a user another login; the homes of their stopped desktops follow.",
        noun="user",
        verb="edit",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="user.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of users.",
        noun="user",
        verb="propset",
        how=How.PROPERTIES,
    ),
    Action(
        name="user.delete",
        key="D",
        title="Delete",
        doc="Deletes users without desktops.",
        noun="user",
        verb="del",
        ask=Ask.TYPED,
        fits=lambda user: not user.vms,
        unfit="owns desktops",
        costs=lambda users: ["Their logins and passwords go for good."],
    ),
)
