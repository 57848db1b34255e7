"""From fork to xinit: everything a launch prepares as root before it becomes the user (protocol.md 4.3, 4.4).

Runs in a child of the VMA. A failure is one line in the log and the end of the child, hence of the launch.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from typing import List, Mapping, Tuple

from appliance.vma import files, login, provision
from appliance.vma.conf import Conf
from appliance.vma.files import say
from appliance.vma.hooks import Hooks
from appliance.vma.wire import XState

_VERBATIM = re.compile(r"[!-9;-~]{1,1024}\Z")  # printable, no blank, and no colon: it ends the options
_PLAIN = re.compile(r"[A-Za-z0-9_/+-]+\Z")


class LaunchError(Exception):
    """The session cannot be started: one line says why."""


def nx_options(conf: Conf, params: Mapping[str, str]) -> str:
    """The line of the options file (protocol.md 4.4). Raises LaunchError on unsafe values."""
    display = conf.number("internal.nxagent.display")
    options = []
    for option, key in (
        ("keyboard", "keyboard"), ("client", "os"), ("link", "link"), ("geometry", "geometry"),
        ("fullscreen", "fullscreen"),
    ):  # fmt: skip
        value = params.get(f"qvd.client.{key}") or conf.get(f"vma.default.client.{key}")
        if value and not _PLAIN.match(value):
            raise LaunchError(f"qvd.client.{key} is '{value[:40]}', which nxagent cannot be given")
        options += [f"{option}={value}"] if value else []
    options += ["media=1"] if conf.flag("vma.audio.enable") else []
    options += ["slave=1"] if conf.flag("vma.slave.enable") else []
    extra = params.get("qvd.client.nxagent.extra_args", "")
    if extra not in ("", "0"):
        if not _VERBATIM.match(extra):
            raise LaunchError("qvd.client.nxagent.extra_args cannot be given to nxagent")
        options.append(extra)
    if printing(conf, params):
        kind = "smb" if params.get("qvd.client.os") == "windows" else "cups"
        options.append(f"{kind}={display + 2000}")
    tolerance = conf["internal.vma.nxagent.tolerancechecks"]
    options += [f"tolerancechecks={tolerance}"] if tolerance else []
    return f"nx/nx,{','.join(options)}:{display}\n"


def printing(conf: Conf, params: Mapping[str, str]) -> bool:
    asked = params.get("qvd.client.printing.enabled", "0")
    return conf.flag("vma.printing.enable") and asked not in ("", "0")


class LaunchChild:
    """What happens between fork and xinit, as root until the last moment (protocol.md 4.3)."""

    def __init__(self, conf: Conf, hooks: Hooks, fifo: str, report: int) -> None:
        self._conf, self._hooks, self._fifo, self._report = conf, hooks, fifo, report

    def run(self, params: Mapping[str, str]) -> None:
        try:
            argv, env = self._ready(params)
            output = os.open(self._fifo, os.O_RDWR)
            null = os.open("/dev/null", os.O_RDONLY)
            account = self._account
            sys.stderr.flush()
            for fd, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(fd, target)
            os.close(output)
            os.close(null)
            login.become(account, self._conf.number("vma.user.umask", 8))
            os.execve(argv[0], argv, env)
        except Exception as exc:
            say(f"the X session cannot start: {exc}")
            raise SystemExit(1) from exc

    def _ready(self, params: Mapping[str, str]) -> Tuple[List[str], Mapping[str, str]]:
        conf = self._conf
        params = provision.filled(conf, params)
        self._hooks.run_action("pre-connect", params, XState.STOPPED.value)
        argv = _command(conf)
        self._account = provision.ensure(conf, self._hooks, params, lambda: self._say("provisioning"))
        self._say("initiating")
        self._hooks.run_action("connect", params, XState.STARTING.value)
        write_files(conf, params, self._account.gid)
        _clear_display(conf.number("internal.nxagent.display"))
        env = login.environment(self._account, conf["vma.default.lang"])
        env["NX_CLIENT"] = conf["command.nxdiag"]
        if conf.flag("vma.audio.enable"):
            env["PULSE_SERVER"] = f"tcp:localhost:{conf.number('internal.nxagent.display') + 7000}"
        if conf["vma.slave.command"]:
            env["QVD_SLAVE_CMD"] = env["NX_SLAVE_CMD"] = conf["vma.slave.command"]
        return argv, env

    def _say(self, word: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._report, word.encode() + b"\n")


def _command(conf: Conf) -> List[str]:
    """The xinit command line. Without `-nolisten tcp` nxagent opens X to everyone on port 6000 + display."""
    for key in ("command.xinit", "command.x-session", "command.nxagent"):
        if not os.access(conf[key], os.X_OK):
            raise LaunchError(f"{key} is '{conf[key]}', which is not an executable of this image")
    display = conf.number("internal.nxagent.display")
    options = f"nx/nx,options={conf['path.run']}/nxagent.conf:{display}"
    return [
        conf["command.xinit"],
        conf["command.x-session"], *shlex.split(conf["command.x-session.args.extra"]),
        "--",
        conf["command.nxagent"], f":{display}", "-ac", "-nolisten", "tcp", "-name", "QVD",
        "-display", options,
        *shlex.split(conf["command.nxagent.args.extra"]),
    ]  # fmt: skip


def write_files(conf: Conf, params: Mapping[str, str], gid: int) -> None:
    """The files that nxagent, the slave server and the printing hook read (protocol.md 4.2).

    The slave key is for the desktop user alone: the slave server runs as that user.
    """
    run = conf["path.run"]
    files.replace(f"{run}/nxagent.conf", nx_options(conf, params))
    files.replace(conf["internal.vma.slave.config"], params.get("qvd.slave.key", ""), mode=0o640, gid=gid)
    port = conf.number("internal.nxagent.display") + 2000
    client = "".join(filter(str.isalnum, params.get("qvd.client.os", "")))
    files.replace(
        f"{run}/printing.conf",
        f"qvd.printing.enabled = {int(printing(conf, params))}\n"
        f"qvd.client.os = {client}\n"
        f"qvd.printing.port = {port}\n",
    )


def _clear_display(display: int) -> None:
    """Room for the X server: its socket's directory, and no lock of one that was killed."""
    with contextlib.suppress(FileExistsError):
        os.mkdir("/tmp/.X11-unix")
        os.chmod("/tmp/.X11-unix", 0o1777)
    for path in (f"/tmp/.X{display}-lock", f"/tmp/.X11-unix/X{display}"):
        files.remove(path)
