"""The VMA put together, and how it powers the guest off."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess

from appliance.vma import files
from appliance.vma.conf import Conf
from appliance.vma.files import say
from appliance.vma.hook_log import HookLog
from appliance.vma.hooks import Hooks
from appliance.vma.loop import Loop
from appliance.vma.messages import Messages
from appliance.vma.nxagent import Desktop
from appliance.vma.question import Question
from appliance.vma.rpc import Server
from appliance.vma.service import Service
from appliance.vma.xsession import LIMITS

POWEROFF = (["poweroff"], ["init", "0"])
_ENV = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"}


def run(conf: Conf, listener: socket.socket) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfError and OSError before it serves."""
    os.umask(0o022)
    if conf.get("log.filename"):
        files.log_to(conf["log.filename"], conf.number("vma.log.limit"))
    conf.number("vma.user.umask", 8)
    loop, hooks = Loop(), Hooks(conf)
    HookLog(conf, loop)
    limits = {name: conf.seconds(f"internal.nxagent.timeout.{name}") for name in LIMITS}
    question, messages = Question(conf, loop, hooks), Messages(conf, loop, hooks)
    service = Service(conf, loop, hooks, question, messages, limits, lambda: _power_off(loop, conf))
    desktop = Desktop(conf, loop, hooks, service.post)
    service.attach(desktop, desktop.adopt())
    Server(loop, listener, conf.words("vma.rpc.allow"), service.serve)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(number, service.quit)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    files.replace(conf["vma.pid_file"], f"{os.getpid()}\n")
    say(f"listening on port {listener.getsockname()[1]}")
    _tell_init("READY=1")
    loop.run()
    files.remove(conf["vma.pid_file"])
    return 0


def _tell_init(state: str) -> None:
    """Say so to systemd, if it wants to know (sd_notify); the desktops inherit no such duty."""
    place = os.environ.pop("NOTIFY_SOCKET", "")
    if place:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(state.encode(), "\0" + place[1:] if place.startswith("@") else place)
        except OSError as exc:
            say(f"init does not listen: {exc.strerror}")


def _power_off(loop: Loop, conf: Conf) -> None:
    """Try the ways of this guest in turn, in a child; the VMA goes on answering until init ends it."""
    own = shlex.split(conf["command.poweroff"])

    def work() -> None:
        for argv in [own] if own else POWEROFF:
            try:
                if subprocess.run(argv, env=_ENV, check=False).returncode == 0:
                    return
            except OSError as exc:
                say(f"{argv[0]}: {exc.strerror}")
        say("the guest cannot be powered off: set command.poweroff")

    loop.fork(work, lambda _: None)
